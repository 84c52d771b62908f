"""Attacks on a running demo over loopback: each of them succeeded once."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import httpx
import pytest

from demo.examples import FOLDER, load_examples
from demo.queueing import MAX_OF_CLIENT
from tests.servers import Demo, Visitor, running_demo

EXAMPLE = FOLDER / load_examples()[1]["file"]


@pytest.fixture(scope="module")
def demo(package: Path, tmp_path_factory) -> Iterator[Demo]:
    """A demo whose uploads and temporary files lie in folders of their own; afterwards its log has no traceback."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "tmp").mkdir()
    with running_demo(package, folder, TMPDIR=str(folder / "tmp")) as demo:
        yield demo
    assert "Traceback" not in demo.log.read_text()


@pytest.fixture
def visitor(demo: Demo) -> Visitor:
    return Visitor(demo, "10.0.0.2")


def test_the_queue_cannot_be_bypassed(demo, visitor):
    """Eight posts of one file to this route took 5.6 GB at once."""
    data = [visitor.upload(EXAMPLE), None, "unknown", "unknown", None]
    for route in ("run/predict", "api/predict", "call/v2/predict"):
        assert visitor.http.post(f"/{route}", json={"data": data}).status_code == 404


def test_nothing_is_written_outside_the_folder_that_is_swept(demo, visitor):
    """Recordings were, and stayed; links to a session wrote its patient down."""
    visitor.predict(EXAMPLE)
    assert visitor.http.post("/process_recording", files={"video": ("a.mp4", b"x" * 9999)}).status_code == 404
    assert visitor.http.get("/deep_link", params={"session_hash": "a"}).status_code == 404
    assert not list((demo.uploads.parent / "tmp").iterdir())
    assert not list(demo.uploads.glob("deep_links*"))


def test_another_site_gets_no_answer_with_credentials(demo):
    for path in ("/", "/config", "/gradio_api/info"):
        answer = httpx.get(demo.address + path, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    assert httpx.get(demo.address, headers={"Origin": demo.address}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": ' + b"[" * 700 + b"]" * 700 + b"}", b'{"data": [' + b"[0]," * 600 + b"0]}", b"[" * 799, b"\xff", b"",
        b'{"data": [{"path": "a", "meta": {"_type": "gradio.FileData"}}, 1, "F", "PA", null]}', b'{"data": null}',
        json.dumps({"data": ["a" * 900_000]}).encode(),
        json.dumps({"data": [None, None, "a" * 900_000, "PA", None]}).encode(),
        json.dumps({"data": [None] * 5, "session_hash": "a" * 9999}).encode(),
    ],
)  # fmt: skip
def test_json_of_any_form_is_answered(demo, visitor, body):
    answer = visitor.http.post("/call/predict", content=body, headers={"Content-Type": "application/json"})
    if answer.status_code == 200:
        text = visitor.http.get(f"/call/predict/{answer.json()['event_id']}").text
        assert "event: error" in text and "Traceback" not in text
    else:
        assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/a.png", "https://example.org/a.png"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_addresses_are_refused_whatever_they_say_of_themselves(visitor, path, is_stream):
    file = {"path": path, "url": path, "is_stream": is_stream, "meta": {"_type": "gradio.FileData"}}
    assert "Addresses are not fetched" in visitor.call("predict", file, None, "unknown", "unknown", None)
    assert "Addresses are not fetched" in visitor.call("predict_batch", [file], None)


def test_an_age_of_true_is_no_age(visitor):
    """To Python it is 1, so that the answer was that of a child of one year."""
    text = visitor.call("predict", visitor.upload(EXAMPLE), True, "unknown", "unknown", None)
    assert "event: error" in text and "age True is not a number of years" in text


def test_one_client_cannot_keep_others_out(demo, visitor):
    """One client filled all places in 0.2 s, by sessions that it invented."""
    greedy = Visitor(demo, "10.0.0.1")
    file = greedy.upload(EXAMPLE)
    data = [[file] * 20, None]  # long work
    answers = [
        greedy.http.post("/call/predict_batch", json={"data": data, "session_hash": f"invented-{number}"})
        for number in range(MAX_OF_CLIENT + 20)
    ]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert "too many readings" in answers[-1].json()["detail"]
    rows: list[str] = []
    batch = Thread(target=lambda: rows.append(visitor.call("predict_batch", [visitor.upload(EXAMPLE)], None)))
    batch.start()
    assert len(visitor.predict(EXAMPLE)) == 14  # readings do not wait for batches
    batch.join(120)  # the second in the queue, although it came last
    assert "event: complete" in rows[0]
    greedy.http.close()
