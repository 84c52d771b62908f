"""Whom the demo talks to by itself: every address that its process looks up or connects to, from its start on."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
HERE = {"127.0.0.1", "localhost", "::1", "0.0.0.0", "None"}
VIEWER = "datasets-server.huggingface.co"
# Python's own ear: what any library looks up or connects to, in any thread. What is outside is not reached.
LISTEN = f"""
import runpy, socket, sys

def hear(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    hub = sys.modules.get("huggingface_hub.constants")
    print("asks", host, "quiet" if hub and hub.HF_HUB_DISABLE_TELEMETRY else "aloud", flush=True)
    if str(host) not in {HERE}:
        raise OSError("outside")

sys.addaudithook(hear)
socket.getaddrinfo("localhost", 80)  # to be heard, or the ear is deaf
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.mark.parametrize(("offline", "allowed"), [("TRUE", set()), ("0", {VIEWER})])
def test_nobody_outside_is_asked_but_the_viewer_of_data_sets(package, offline, allowed):
    port = free_port()
    unset = ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "CXR_DATASETS_SERVER")
    environment = {
        name: value for name, value in os.environ.items() if name not in unset and not name.lower().endswith("_proxy")
    }
    environment |= {"CXR_MODEL": str(package), "PORT": str(port), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": offline}
    process = subprocess.Popen(
        [sys.executable, "-c", LISTEN], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    heard = []
    try:
        for line in process.stdout:
            heard.append(line.split())
            if "Running on" in line:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=60) as answer:
            config = json.load(answer)
    finally:
        process.terminate()
        heard += [line.split() for line in process.stdout]  # communicate() would lose what was read ahead
        process.wait(60)
    assert ["*", "Running"] in [words[:2] for words in heard], "the demo stopped while starting"
    first, *asks = [words[1:] for words in heard if words[:1] == ["asks"]]
    assert first == ["localhost", "aloud"]  # nothing was imported yet
    assert {host for host, _ in asks} - HERE <= allowed
    assert {how for _, how in asks} <= {"quiet"}  # the Hub's client names no session
    assert config["analytics_enabled"] is False and config["run_history"] is False
