"""What the tests of the demo share: DICOM files of any header, a real server, a real browser."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client
from PIL import Image
from transformers import pipeline

from configuration_cxrfpn import FINDINGS
from tests.servers import Demo, running_demo


@pytest.fixture(scope="session")
def dicom(drawing: np.ndarray) -> Callable[..., bytes]:
    """Make a DICOM file of the drawing at 16 bits; keywords change its header."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    def make(syntax: str = ExplicitVRLittleEndian, **header: object) -> bytes:
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"  # computed radiography
        dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.Rows, dataset.Columns = drawing.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.PixelData = (drawing.astype(np.uint16) * 200).tobytes()
        for keyword, value in header.items():
            setattr(dataset, keyword, value)
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def measured_package(package: Path, tmp_path_factory) -> Path:
    """The tiny package, with figures beside it as score.py writes them."""
    folder = tmp_path_factory.mktemp("measured") / "tiny"
    shutil.copytree(package, folder)
    thresholds = json.loads((folder / "thresholds.json").read_text())
    points = thresholds["operating_points"]
    # Every other finding is called, at any score: so the order of calls is not that of scores.
    points["sensitivity_90"] = {name: 0.1 if index % 2 else 0.9 for index, name in enumerate(FINDINGS)}
    (folder / "thresholds.json").write_text(json.dumps(thresholds))
    counts = {"sensitivity": 0.75, "specificity": 0.5, "true_positives": 30, "false_negatives": 10,
              "true_negatives": 50, "false_positives": 50, "few_positives": False}  # fmt: skip
    row = {
        "positives": 40,
        "auroc": 0.7123,
        "auroc_ci": [0.6, 0.8],
        "threshold": 0.5,
        "recall": 0.75,
        "specificity": 0.5,
    }
    figures = {
        "images": 1234, "patients": 321, "split": "test", "mean_auroc": 0.7654, "mean_auroc_ci": [0.7, 0.8],
        "operating_point": "dynamic_adjustment", "macro": {"f1": 0.3}, "baselines": {}, "subgroups": {},
        "findings": dict.fromkeys(FINDINGS, row),
        "operating_points": {
            point: {name: {"threshold": value, **counts} for name, value in thresholds.items()}
            for point, thresholds in points.items()
        },
    }  # fmt: skip
    (folder / "results" / "plots").mkdir(parents=True)
    (folder / "results" / "metrics.json").write_text(json.dumps(figures))
    Image.new("RGB", (40, 30), "white").save(folder / "results" / "plots" / "roc.png")
    return folder


@pytest.fixture(scope="session")
def server(measured_package: Path, tmp_path_factory) -> Iterator[Demo]:
    with running_demo(measured_package, tmp_path_factory.mktemp("server")) as demo:
        yield demo


@pytest.fixture(scope="session")
def address(server: Demo) -> str:
    return server.address


@pytest.fixture(scope="session")
def client(address: str) -> Client:
    return Client(address, verbose=False)


@pytest.fixture(scope="session")
def pipe(measured_package: Path):
    return pipeline("chest-xray-findings", model=str(measured_package), trust_remote_code=True)


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page.problems, page.asked = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("dialog", lambda dialog: page.problems.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    page.wait_for_selector(".example")
    yield page
    page.close()
    assert not page.problems
    assert all(url.startswith((address, "data:", "blob:")) for url in page.asked)  # nothing of the network
