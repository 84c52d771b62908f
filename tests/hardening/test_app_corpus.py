"""The corpus through the demo: every file through the page's own function, and many over HTTP."""

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from configuration_cxrfpn import FINDINGS
from demo.page import build
from engine_cxrfpn import load_engine
from tests.hardening.test_corpus import CONTROLS
from tests.servers import running_demo


@pytest.fixture(scope="module")
def handlers(package: Path) -> dict[str, Callable[..., Any]]:
    """The functions behind the page and the API, by name."""
    page = build(load_engine(str(package)))
    return {block.fn.__name__: block.fn for block in page.fns.values() if block.fn is not None}


def test_the_page_answers_for_every_file(handlers, corpus, corpus_folder):
    for name, file in corpus.items():
        shown = handlers["read"](str(corpus_folder / name), "", "unknown", "unknown")
        json.dumps(shown, allow_nan=False)  # what a browser could not parse would be an empty page
        if "error" in shown:
            assert not file.is_good or "is not taken here" in shown["error"], shown
            assert shown["error"].startswith(f"{name}: ") and str(corpus_folder) not in shown["error"]
            assert not CONTROLS.search(shown["error"])
        else:
            assert file.is_good is not False, name
            assert sorted(finding["label"] for finding in shown["findings"]) == sorted(FINDINGS)
            assert max(shown["width"], shown["height"]) <= 1024 and min(shown["width"], shown["height"]) >= 1


def test_the_form_is_filled_or_left_alone_by_every_dicom(handlers, corpus, corpus_folder):
    for name in corpus:
        if name.endswith(".dcm"):
            age, sex, view_position = handlers["fill"](str(corpus_folder / name), "7", "F", "PA")
            assert isinstance(age, str) and sex in ("M", "F", "unknown") and view_position in ("PA", "AP", "unknown")


@pytest.fixture(scope="module")
def server(package: Path, tmp_path_factory) -> Iterator[tuple[Client, Path]]:
    """The demo in a process of its own, and its log."""
    with running_demo(package, tmp_path_factory.mktemp("server")) as demo:
        yield Client(demo.address, verbose=False), demo.log


@pytest.fixture
def client(server: tuple[Client, Path]) -> Iterator[Client]:
    """Ask the demo; its log has no traceback afterwards."""
    client, log = server
    yield client
    assert "Traceback" not in log.read_text()


def test_a_zip_of_the_corpus_is_answered_file_by_file_over_http(client, corpus, corpus_folder, tmp_path):
    chosen = [name for place, name in enumerate(corpus) if place % 9 == 0 or name.startswith(("bomb", "claim"))]
    archive = tmp_path / "corpus.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for name in chosen:
            zipped.write(corpus_folder / name, name)
    rows = client.predict([handle_file(archive)], api_name="/predict_batch")
    assert [row["image"] for row in rows] == chosen
    for row in rows:
        if "error" in row:
            assert corpus[row["image"]].is_good is not True, row
        else:
            assert corpus[row["image"]].is_good is not False and len(row["findings"]) == 14, row


@pytest.mark.parametrize(
    "name", ["bomb_strip.png", "claim_most.png", "cut_50_deep.png", "dicom_nested_deep.dcm", "impostor_zip.png"]
)
def test_a_bad_file_is_one_line_over_http(client, corpus_folder, name):
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(corpus_folder / name), api_name="/predict")
    assert str(caught.value).startswith(f"{name}: ") and not CONTROLS.search(str(caught.value))


@pytest.mark.parametrize(
    "values",
    [
        ["old", "F", "PA", "youden"], [float("nan"), "F", "PA", "youden"], [1e999, "F", "PA", "youden"],
        [[63], "F", "PA", "youden"], [{}, "F", "PA", "youden"], [10**400, "F", "PA", "youden"],
        [63, [], "PA", "youden"], [63, 7, "PA", "youden"], [63, "F", {"a": 1}, "youden"], [63, "F", "PA", ["youden"]],
        [63, "F", "PA", 9], [], [63],
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind_are_answered(server, corpus_folder, values):
    """As a program without gradio's client may send them: findings, or an error, never a server that has stopped."""
    address = f"{server[0].src.rstrip('/')}/gradio_api"
    with (corpus_folder / "sound_grey.png").open("rb") as file:
        (path,) = httpx.post(f"{address}/upload", files={"files": file}).json()
    body = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, *values]})
    asked = httpx.post(f"{address}/call/predict", content=body, headers={"Content-Type": "application/json"})
    if asked.status_code == 200:
        answer = httpx.get(f"{address}/call/predict/{asked.json()['event_id']}", timeout=60).text
        assert "Traceback" not in answer and ("event: error" in answer or answer.count('"label"') == 14), answer
    else:
        assert 400 <= asked.status_code < 500 and "Traceback" not in asked.text, asked.text
