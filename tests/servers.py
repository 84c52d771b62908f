"""The demo as a process of its own, for tests that ask it over loopback."""

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Demo:
    """A running demo: where it answers, its process, and the folders of its uploads and its log."""

    address: str
    process: subprocess.Popen
    uploads: Path
    log: Path

    def resident(self) -> float:
        """Return the memory of the process in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20


@contextlib.contextmanager
def running_demo(package: Path, folder: Path, **environment: str) -> Iterator[Demo]:
    """Run app.py on a free port of loopback.

    Args:
        package: the model.
        folder: an empty folder for uploads and the log.
        environment: variables besides those of this process.
    """
    port = free_port()
    uploads, log = folder / "uploads", folder / "log"
    variables = {
        "CXR_MODEL": str(package), "PORT": str(port), "GRADIO_TEMP_DIR": str(uploads), "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1", **environment,
    }  # fmt: skip
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env={**os.environ, **variables}, stdout=subprocess.PIPE,
            stderr=errors, text=True,
        )  # fmt: skip
    try:
        assert any("Running on" in line for line in process.stdout), log.read_text()[-2000:]
        yield Demo(f"http://127.0.0.1:{port}", process, uploads, log)
    finally:
        process.terminate()
        process.communicate(timeout=30)


class Visitor:
    """A client of a demo that behaves as if it came from an address of its own, behind a proxy of this machine."""

    def __init__(self, demo: Demo, address: str):
        self.http = httpx.Client(
            base_url=f"{demo.address}/gradio_api", headers={"X-Forwarded-For": address}, timeout=300
        )

    def upload(self, path: Path) -> dict[str, Any]:
        """Upload a file; return what stands for it in a call."""
        with path.open("rb") as file:
            (uploaded,) = self.http.post("/upload", files={"files": file}).raise_for_status().json()
        return {"path": uploaded, "meta": {"_type": "gradio.FileData"}}

    def call(self, endpoint: str, *data: Any) -> str:
        """Ask an endpoint; return the events of its answer as they come over the line."""
        event = self.http.post(f"/call/{endpoint}", json={"data": data}).raise_for_status().json()["event_id"]
        return self.http.get(f"/call/{endpoint}/{event}").raise_for_status().text

    def predict(self, path: Path, age: float | None = None) -> dict[str, float]:
        """Upload a radiograph and return its scores by finding."""
        text = self.call("predict", self.upload(path), age, "unknown", "unknown", None)
        assert "event: complete" in text, text
        answer = json.loads(text.partition("event: complete\ndata: ")[2].partition("\n")[0])[0]
        return {finding["label"]: finding["score"] for finding in answer["findings"]}
