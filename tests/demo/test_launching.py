"""How the demo starts and stops: addresses at which nothing can listen, and what it leaves behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

from demo.examples import FOLDER, load_examples
from demo.launching import AddressError, free_address
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = FOLDER / load_examples()[1]["file"]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of loopback at which something listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_stopped_leaves_no_upload_behind(package, tmp_path, signal_):
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    environment |= {"CXR_MODEL": str(package), "PORT": str(port), "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
        # Tests that run in the background ignore it, and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert any("Running on" in line for line in process.stdout), "the demo stopped while starting"
        Client(f"http://127.0.0.1:{port}", verbose=False).predict(handle_file(EXAMPLE), api_name="/predict")
        assert [path.name for path in tmp_path.glob("cxr-demo-*/*/*")] == [EXAMPLE.name]
        process.send_signal(signal_)
        code = process.wait(60)
    finally:
        process.kill()
    assert code == 0 and not list(tmp_path.glob("cxr-demo-*"))


@pytest.mark.parametrize("port", ["abc", "taken"])
def test_a_port_that_cannot_be_had_is_one_line_and_exit_code_2(package, port, taken):
    port = str(taken) if port == "taken" else port
    environment = {**os.environ, "CXR_MODEL": str(package), "PORT": port}
    done = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("app: ") and port in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("port", ["0", "65536", "-1", "80.5", "\u0663"])
def test_only_ports_are_ports(monkeypatch, port):
    monkeypatch.setenv("PORT", port)
    with pytest.raises(AddressError, match="is no port; set it to a number from 1 to 65535"):
        free_address()


def test_an_address_of_another_machine_is_told(monkeypatch):
    monkeypatch.setenv("HOST", "192.0.2.1")  # of the range for examples: nobody's
    with pytest.raises(AddressError, match="cannot listen on 192.0.2.1, port 7860"):
        free_address()


def test_a_free_address_is_given_as_it_was_told(monkeypatch):
    port = free_port()
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("PORT", str(port))
    assert free_address() == ("0.0.0.0", port)
