"""The demo as it is served: a real server on loopback, asked by gradio's own client."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import sync_playwright
from transformers import pipeline

from configuration_cxrfpn import FINDINGS

ROOT = Path(__file__).resolve().parents[1]
# Chromium as root, in a closed network: no sandbox, and no calls home.
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def address(package: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "CXR_MODEL": str(package), "PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "0"}
    server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None, "the demo stopped while starting"
            try:
                urllib.request.urlopen(url, timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


def test_the_demo_gives_the_pipelines_findings(client, package, drawing, tmp_path):
    path = tmp_path / "drawing.png"
    Image.fromarray(drawing).save(path)
    table, chooser, picture = client.predict(handle_file(path), "63", "F", "AP", api_name="/predict")
    pipe = pipeline("chest-xray-findings", model=str(package), trust_remote_code=True)
    expected = pipe({"image": path, "age": 63, "sex": "F", "view_position": "AP"})
    rows = {row[0]: row[1:] for row in table["data"]}
    assert set(rows) == set(FINDINGS)
    for finding in expected:
        call = "positive" if finding["positive"] else ""
        assert rows[finding["label"]] == [f"{finding['score']:.3f}", f"{finding['threshold']:.2f}", call]
    calls = [row[3] for row in table["data"]]
    assert calls == sorted(calls, reverse=True)  # positive calls first
    with Image.open(picture) as shown:
        assert shown.size == (drawing.shape[1], drawing.shape[0])


def test_a_file_that_is_no_radiograph_is_answered_in_one_line(client, tmp_path):
    path = tmp_path / "letter.png"
    path.write_text("Dear colleague")
    with pytest.raises(AppError, match=r"letter\.png: not an image that can be read") as caught:
        client.predict(handle_file(path), "", "unknown", "unknown", api_name="/predict")
    assert "/" not in str(caught.value)  # no path of the server


def test_an_impossible_age_is_answered_in_one_line(client, drawing, tmp_path):
    path = tmp_path / "drawing.png"
    Image.fromarray(drawing).save(path)
    with pytest.raises(AppError, match="age|120"):
        client.predict(handle_file(path), "414", "F", "AP", api_name="/predict")


def test_in_a_browser_what_was_not_told_is_unknown(address, package, drawing, tmp_path):
    """An untouched form says nothing of the patient: not even that it is a newborn."""
    path = tmp_path / "drawing.png"
    Image.fromarray(drawing).save(path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        page = browser.new_page()
        page.goto(address)
        page.set_input_files("input[type=file]", path)
        page.get_by_text(path.name).wait_for()
        page.get_by_role("button", name="Find").click()
        page.get_by_text("Pneumothorax").first.wait_for()
        shown = " ".join(page.locator("body").inner_text().split())
        browser.close()
    pipe = pipeline("chest-xray-findings", model=str(package), trust_remote_code=True)
    for finding in pipe(path)[:3]:  # the table draws the rows that are seen
        assert f"{finding['label']} {finding['score']:.3f}" in shown
