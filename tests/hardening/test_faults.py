"""A folder that cannot be written, a file in its place, no network: one line, and nothing is left behind."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.hardening.conftest import refusal
from tests.hubs.loopback import LoopbackHub


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder in which nothing can be written, and what unlocks it."""
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder, lambda: folder.chmod(0o755)
        folder.chmod(0o755)
        return
    # Root may write wherever the file system lets it.
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("nothing is read-only for root, and mounting is not allowed here")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("name", ["prepare", "train", "predict", "maps", "archive", "score"])
def test_a_folder_that_cannot_be_written(commands, script, locked, name):
    folder, unlock = locked
    script_name, *arguments = commands(name, folder / "out")
    line = refusal(script_name, script(script_name, *arguments))
    assert str(folder / "out") in line and ("Read-only file system" in line or "Permission denied" in line)
    unlock()
    assert not list(folder.iterdir())
    assert script(script_name, *arguments)[0] == 0 and (folder / "out").exists()


@pytest.mark.parametrize("name", ["prepare", "train", "predict", "maps", "archive", "score"])
def test_a_file_where_a_folder_should_be(commands, script, tmp_path, name):
    letter = tmp_path / "letter"
    letter.write_text("Dear colleague")
    place = letter / "findings.csv" if name == "predict" else letter
    script_name, *arguments = commands(name, place)
    line = refusal(script_name, script(script_name, *arguments))
    assert str(letter) in line and letter.read_text() == "Dear colleague" and list(tmp_path.iterdir()) == [letter]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Hub where nobody listens, a cache where nothing is, and no waiting between tries."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = LoopbackHub()
        nobody.endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    nobody.take_over(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("prepare", ["--source", "org/chests", "--output", "{out}"], "org/chests@main: the Hub cannot be read"),
        ("predict", ["{film}", "--model", "org/cxr", "--output", "{out}"], "org/cxr: the model cannot be loaded"),
        ("score", ["--model", "org/cxr", "--source", "phantom:9", "--output-dir", "{out}"], "org/cxr: the model"),
        ("train", ["{recipe}", "--output-dir", "{out}", "--backbone-weights", "org/cxr"], "org/cxr: is neither a file"),
        ("publish", ["{run}", "--model-repo", "org/a", "--space-repo", "org/b"], "the Hub: the connection to the Hub"),
    ],
)
def test_without_a_network(no_network, script, recipe, films, request, tmp_path, name, arguments, said):
    places = {"out": tmp_path / "out", "recipe": recipe, "film": next(films.iterdir())}
    if name == "publish":
        places["run"] = request.getfixturevalue("finished")
    line = refusal(name, script(name, *(each.format(**places) for each in arguments)))
    assert line.startswith(f"{name}: {said}")
    assert not (tmp_path / "out").exists()
