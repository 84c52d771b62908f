"""Radiographs from the NIH test set, through a loopback that answers as the Hub's viewer of data sets does."""

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from demo import nih


@pytest.fixture
def viewer(drawing: np.ndarray, monkeypatch) -> Iterator[dict]:
    """A loopback viewer; what is put into the dictionary changes its row."""
    file = io.BytesIO()
    Image.fromarray(drawing).save(file, "JPEG")
    row = {"image_id": "00000013_005", "label_names": ["Effusion", "Mass"], "patient_age": 60, "patient_sex": "M",
           "view_position": "AP"}  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/image"):
                return self.answer(file.getvalue())
            source = f"http://127.0.0.1:{self.server.server_port}/image.jpg"
            self.answer(json.dumps({"rows": [{"row": {**row, "image": {"src": source}}}]}).encode())

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("CXR_DATASETS_SERVER", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield row
    server.shutdown()


def test_a_radiograph_comes_with_its_patient_and_its_label(viewer):
    assert nih.is_reachable()
    upload, patient = nih.draw_radiograph()
    assert patient == {"age": 60, "sex": "M", "view_position": "AP"}
    assert nih.label_of(upload.data) == ["Effusion", "Mass"]
    assert nih.label_of(b"another") is None


def test_no_finding_is_an_empty_label(viewer):
    viewer["label_names"] = ["No Finding"]
    upload, _ = nih.draw_radiograph()
    assert nih.label_of(upload.data) == []


def test_an_answer_of_another_form_is_one_line(viewer):
    viewer.pop("label_names")
    with pytest.raises(nih.UnreachableError, match="Hub"):
        nih.draw_radiograph()


def test_without_the_hub_nothing_is_offered(monkeypatch):
    monkeypatch.setenv("CXR_DATASETS_SERVER", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert not nih.is_reachable()
    with pytest.raises(nih.UnreachableError):
        nih.draw_radiograph()


def test_offline_the_hub_is_not_asked_even_where_it_would_answer(viewer, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not nih.is_reachable()
    with pytest.raises(nih.UnreachableError, match="asks nothing of the network"):
        nih.draw_radiograph()
