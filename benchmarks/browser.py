"""What a visitor of the page in the browser waits for, beside Python's onnxruntime on the same machine and file."""

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.inference import MODEL, write_drawing
from benchmarks.ratio import Row, time_ratio
from browser.publishing import page_files
from browser.writing import write_folder
from exported_cxrfpn import OnnxRuntimeEngine
from tests.browser.conftest import serve
from tests.chromium import CHROMIUM, FLAGS

ROUNDS, COLD_ROUNDS = 15, 5
# The aims are 300 ms for a film and 3 s for the first one, on two cores, as shares of what Python takes there.
AIM, COLD_AIM = 6.0, 4.0


def measure() -> list[Row]:
    """Read a PNG of 1024 x 1024 pixels by the released model: with its maps, and from the opening of the page."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        film, site = write_drawing(Path(folder) / "drawing.png", 0), Path(folder) / "page"
        files, _ = page_files(Path(MODEL), None)
        write_folder(files, site)
        served = serve(site)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()

        def open_and_read() -> None:
            page.goto(served.address)
            page.set_input_files("#upload input[type=file]", film)
            page.wait_for_selector(".reading")

        def read() -> None:
            page.click("#read")
            page.wait_for_selector("#read:not([aria-busy])")

        open_and_read()
        page.evaluate("navigator.serviceWorker.ready.then(() => 0)")  # from here on, it opens from its cache
        command = [sys.executable, "predict.py", str(film), "--model", str(site / "model.onnx"), "--backend", "onnx"]
        cold = time_ratio(
            open_and_read, lambda: subprocess.run(command, cwd=MODEL, check=True, capture_output=True), COLD_ROUNDS
        )
        engine = OnnxRuntimeEngine(site / "model.onnx")
        warm = time_ratio(read, lambda: engine({"image": film}, maps=True), ROUNDS)
        threads = page.evaluate("document.documentElement.dataset.threads")
        browser.close()
        served.server.shutdown()
    where = f"in Chromium with {threads} threads"
    return [
        Row(f"one film with its maps, {where} / onnxruntime in Python", warm[0], AIM, _seconds(warm)),
        Row(f"from opening the page to a reading, {where} / a fresh predict.py", cold[0], COLD_AIM, _seconds(cold)),
    ]


def _seconds(measured: tuple[float, float, float]) -> str:
    return f"({1000 * measured[1]:.0f} ms / {1000 * measured[2]:.0f} ms)"
