"""A film goes into a real Orthanc on loopback, and its report comes out."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from tests.ports import free_port
from tests.test_dicom_reports import save_film

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed (Debian's orthanc)")


def ask(url: str, content: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, content), timeout=30) as answer:
        return json.loads(answer.read())


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """What is there within so many seconds; a refused connection counts as not there yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := what():
                return found
        except OSError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"nothing came within {seconds} seconds")


@pytest.fixture
def orthanc(tmp_path) -> Iterator[str]:
    """The address of an empty Orthanc; it stops with the test."""
    port, folder = free_port(), str(tmp_path / "orthanc")
    settings = {"HttpPort": port, "DicomServerEnabled": False, "StorageDirectory": folder, "IndexDirectory": folder,
                "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": []}  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    with (tmp_path / "orthanc.log").open("w") as log:
        process = subprocess.Popen(["Orthanc", tmp_path / "orthanc.json"], stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: ask(f"{url}/system"))
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


def test_a_film_goes_in_and_a_report_comes_out(orthanc, package, drawing, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "examples" / "orthanc_reports.py", orthanc, "--model", package, "--since", "0"]
    with (tmp_path / "watch.log").open("w+") as log:
        watcher = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            film = save_film(tmp_path / "film.dcm", drawing)
            hand = save_film(tmp_path / "hand.dcm", drawing)
            other = dcmread(hand)
            other.BodyPartExamined = "HAND"
            other.save_as(hand, enforce_file_format=True)
            for path in (hand, film):
                assert ask(f"{orthanc}/instances", path.read_bytes())["Status"] == "Success"

            def modalities() -> list[str]:
                series = ask(f"{orthanc}/series?expand")
                return sorted(each["MainDicomTags"]["Modality"] for each in series)

            wait_for(lambda: {"SR", "OT"} <= set(modalities()), 120)
            time.sleep(3)  # longer than it waits between two looks: its own output must not come back in
            assert modalities() == ["DX", "OT", "SR"] and len(ask(f"{orthanc}/instances")) == 4
            assert len(ask(f"{orthanc}/studies")) == 1 and len(ask(f"{orthanc}/patients")) == 1
            (patient,) = ask(f"{orthanc}/patients?expand")
            assert patient["MainDicomTags"]["PatientID"] == "ward-7"
        finally:
            watcher.terminate()
            watcher.wait(timeout=30)
        log.seek(0)
        assert log.read().count("report stored") == 1
