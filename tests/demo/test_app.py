"""The demo's endpoints as they are served: a real server on loopback, asked by gradio's client and by curl."""

import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError

from configuration_cxrfpn import FINDINGS
from demo.examples import FOLDER, load_examples

CALLS = Path(__file__).resolve().parents[2] / "demo" / "calls.md"
EXAMPLE = FOLDER / load_examples()[1]["file"]


def scores(answer: dict) -> dict[str, float]:
    return {finding["label"]: finding["score"] for finding in answer["findings"]}


def answer_to(address: str, endpoint: str, data: list) -> str:
    """Ask as a program without gradio's client would: a path is any text."""
    url = f"{address}/gradio_api/call/{endpoint}"
    request = urllib.request.Request(url, json.dumps({"data": data}).encode(), {"Content-Type": "application/json"})
    event = json.load(urllib.request.urlopen(request))["event_id"]
    return urllib.request.urlopen(f"{url}/{event}").read().decode()


def test_predict_gives_the_pipelines_findings(client, pipe):
    answer = client.predict(handle_file(EXAMPLE), 63, "F", "AP", "youden", api_name="/predict")
    expected = pipe({"image": EXAMPLE, "age": 63, "sex": "F", "view_position": "AP"}, operating_point="youden")
    assert [finding["label"] for finding in answer["findings"]] == [finding["label"] for finding in expected]
    for given, wanted in zip(answer["findings"], expected, strict=True):
        assert given["score"] == pytest.approx(wanted["score"], abs=1e-6)
        assert given["probability"] == pytest.approx(wanted["probability"], abs=1e-6)
        assert (given["threshold"], given["positive"]) == (wanted["threshold"], wanted["positive"])
    assert answer["patient"] == {"age": 63, "sex": "F", "view_position": "AP"}


def test_what_is_left_out_is_unknown(client, pipe):
    answer = client.predict(handle_file(EXAMPLE), api_name="/predict")
    assert answer["patient"] == {"age": None, "sex": None, "view_position": None}
    assert scores(answer) == pytest.approx({each["label"]: each["score"] for each in pipe(EXAMPLE)}, abs=1e-6)


def test_clients_are_told_the_endpoints_and_their_types(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/predict", "/predict_batch"}
    parameters = {each["parameter_name"]: each for each in endpoints["/predict"]["parameters"]}
    assert list(parameters) == ["image", "age", "sex", "view_position", "operating_point"]
    assert "float" in parameters["age"]["python_type"]["type"]
    assert "Literal" in parameters["sex"]["python_type"]["type"]
    assert not parameters["image"]["parameter_has_default"]
    assert parameters["age"]["parameter_has_default"]


def test_a_batch_has_a_row_for_every_file_good_or_bad(client, pipe, tmp_path):
    letter = tmp_path / "letter.png"
    letter.write_text("Dear colleague")
    archive = tmp_path / "ward.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.write(EXAMPLE, "../../etc/passwd.png")
        zipped.writestr("__MACOSX/._passwd.png", "resource")
    rows = client.predict([handle_file(path) for path in (EXAMPLE, letter, archive)], api_name="/predict_batch")
    assert [row["image"] for row in rows] == [EXAMPLE.name, "letter.png", "passwd.png"]
    assert rows[1] == {"image": "letter.png", "error": rows[1]["error"]} and "not an image" in rows[1]["error"]
    expected = pytest.approx({each["label"]: each["score"] for each in pipe(EXAMPLE)}, abs=1e-6)
    assert scores(rows[0]) == expected and scores(rows[2]) == expected


@pytest.mark.parametrize(
    ("patient", "message"),
    [((414, "F", "AP"), "age"), ((63, "X", "AP"), "X"), ((63, "F", "AP", "nobody's"), "nobody's")],
)
def test_impossible_input_is_answered_in_one_line(client, patient, message):
    with pytest.raises(AppError, match=message) as caught:
        client.predict(handle_file(EXAMPLE), *patient, api_name="/predict")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_radiograph_is_answered_without_a_server_path(client, tmp_path):
    path = tmp_path / "letter.png"
    path.write_text("Dear colleague")
    with pytest.raises(AppError, match=r"letter\.png: not an image that can be read") as caught:
        client.predict(handle_file(path), api_name="/predict")
    assert "/" not in str(caught.value)


def test_an_upload_that_was_swept_while_its_request_waited_is_told_so(address, server):
    gone = {"path": str(server.uploads / "hash" / "gone.png"), "meta": {"_type": "gradio.FileData"}}
    message = "gone.png: the upload is gone, as uploads are deleted 5 minutes after they came"
    assert message in answer_to(address, "predict", [gone, None, "unknown", "unknown", None])
    assert f'"error": "{message}' in answer_to(address, "predict_batch", [[gone], None])


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/a.png", "https://example.org/a.png", "/etc/passwd", "app.py"])
def test_neither_addresses_nor_files_of_the_server_are_read(address, path):
    file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
    answer = answer_to(address, "predict", [file, None, "unknown", "unknown", None])
    assert "event: error" in answer and "findings" not in answer
    assert ("Addresses are not fetched" in answer) == ("://" in path)


def test_an_upload_that_is_too_large_is_refused_while_it_comes(address):
    boundary = b"----x"
    body = b"--" + boundary + b'\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body += bytes(65 * 2**20) + b"\r\n--" + boundary + b"--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=----x"}
    with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)) as caught:
        urllib.request.urlopen(urllib.request.Request(f"{address}/gradio_api/upload", body, kind))
    assert getattr(caught.value, "code", 413) == 413


def test_the_examples_of_the_manual_run(address, tmp_path, page):
    """Python, curl and JavaScript, as they stand in demo/calls.md."""
    text = CALLS.read_text().replace("http://127.0.0.1:7860", address)
    calls = {kind: code for kind, code in re.findall(r"```(python|sh|js)\n(.*?)```", text, re.DOTALL)}
    shutil.copy(EXAMPLE, tmp_path / "radiograph.png")
    runs = {"python": [sys.executable, "-c", calls["python"]], "sh": ["bash", "-c", calls["sh"]]}
    for kind, command in runs.items():
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert all(name in done.stdout for name in FINDINGS), kind
    bytes_ = list(EXAMPLE.read_bytes())
    answer = page.evaluate(
        f"async (bytes) => {{ {calls['js']}; return findings(new File([new Uint8Array(bytes)], 'radiograph.png')); }}",
        bytes_,
    )
    assert {finding["label"] for finding in answer["findings"]} == set(FINDINGS)
