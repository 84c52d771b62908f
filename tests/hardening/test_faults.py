"""A full disk, a folder that cannot be written, no network: one line, nothing half-written, and the next run works."""

import importlib
import json
import os
import re
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub import constants
from PIL import Image

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.labels import label_matrix
from cxrfpn.data.phantom import PhantomSource
from cxrfpn.training.checkpoint import Checkpoint, Place, load_checkpoint, save_checkpoint
from pipeline_cxrfpn import load_pipeline
from tests.hardening.test_kills import IMAGES_A_PART, PARTS, RECIPE, chests  # noqa: F401 - a prepared folder
from tests.loopback_hub import LoopbackHub
from tests.test_publish import finished  # noqa: F401 - a run folder

IMAGES = PARTS * IMAGES_A_PART


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    """Run a script's main in this process: its name and arguments -> exit code and standard error."""

    def run(name: str, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, arguments)])
        code = importlib.import_module(name).main()
        return code, capsys.readouterr().err

    return run


def refusal(name: str, told: tuple[int, str]) -> str:
    """The one line of a command that failed as it should."""
    code, err = told
    lines = [line for line in err.splitlines() if line.startswith(f"{name}: ")]
    assert code == 2 and len(lines) == 1 and not re.search("^Traceback", err, re.MULTILINE), told
    return lines[0]


def leftovers(folder: Path) -> list[Path]:
    """What was on its way when writing stopped."""
    return [path for pattern in ("*.tmp", ".package-*") for path in folder.rglob(pattern)]


@contextmanager
def disk_for_files_of(size: int) -> Iterator[None]:
    """No file can grow over `size` bytes: as on a full disk, writing fails in the middle of it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def recipe(chests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    values = {**RECIPE, "source": f"parquet:{chests}", "cycles": [{"epochs": 1, "image_size": 64}]}
    path.write_text(yaml.safe_dump({**values, "batch_size": 32}))
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, drawing: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("films")
    Image.fromarray(drawing).save(folder / "film.png")
    return folder


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's scores of the chests."""
    file = tmp_path_factory.mktemp("scores") / "scores.csv"
    metadata = PhantomSource(IMAGES).metadata()
    values = np.random.default_rng(0).random(label_matrix(metadata).shape)
    pd.DataFrame(values, columns=list(FINDINGS)).assign(image_id=metadata["image_id"]).to_csv(file, index=False)
    return file


@pytest.fixture
def commands(chests, recipe, films, scores, package) -> Callable[[str, Path], list[object]]:  # noqa: F811
    """A script, and where it is to write -> its arguments."""
    load_pipeline(str(package))  # which copies the package's modules to where transformers imports them from
    predicting = ["predict", "--model", package]
    asked = {
        "prepare": ["prepare", "--source", f"parquet:{chests}", "--size", 48, "--processes", 1, "--output"],
        "train": ["train", recipe, "--resume", "--output-dir"],
        "predict": [*predicting, films, "--format", "csv", "--output"],
        "maps": [*predicting, films, "--operating-point", "youden", "--maps"],
        "archive": [*predicting, "--source", f"parquet:{chests}", "--output"],
        "score": ["score", "--predictions", scores, "--source", f"parquet:{chests}", "--split", "all",
                  "--resamples", 10, "--output-dir"],
    }  # fmt: skip
    return lambda name, place: [*asked[name], place]


FULL = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes whose coverage nobody measures: on a full disk it could not be written down."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS_")]:
        monkeypatch.delenv(name)


def test_prepare_on_a_full_disk(uncounted, commands, script, run_python, tmp_path):
    """In a process of its own: its workers come from a server that may have been started here long ago."""
    out = tmp_path / "out"
    _, *arguments = commands("prepare", out)
    done = run_python("-c", FULL, 8192, "prepare.py", *arguments)
    assert refusal("prepare", (done.returncode, done.stderr)) == (
        f"prepare: {out}: the disk is full; make room and run the same command again to go on"
    )
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["prepare.json"]
    assert script("prepare", *arguments)[0] == 0


@pytest.mark.parametrize(
    ("size", "changes", "said"),
    [
        (10_000, [], "{folder}/checkpoints/step-00000002'"),
        (20_000, ["--checkpoint-steps", 1000], "{folder}/model.safetensors: cannot be written"),
        (110_000, [], "File too large"),  # in a picture of the report, long after the last checkpoint
    ],
)
def test_train_on_a_full_disk(commands, script, tmp_path, size, changes, said):
    folder = tmp_path / "run"
    name, *arguments = [*commands("train", folder), *changes]
    with disk_for_files_of(size):
        line = refusal("train", script(name, *arguments))
    assert said.format(folder=folder) in line and line.endswith("; mend that, and --resume goes on")
    assert not leftovers(folder) and (folder / "model.safetensors").exists() == (size == 110_000)
    assert script(name, *arguments)[0] == 0
    assert not leftovers(folder) and (folder / "README.md").exists()


def test_no_checkpoint_is_given_up_for_one_that_is_damaged(tmp_path):
    """A run went on from step 5, since that of step 9 was damaged; what it then writes is what is kept."""

    def save(updates: int) -> None:
        tensors = {"model": {"weight": torch.zeros(3)}}
        save_checkpoint(tmp_path, Checkpoint(tensors, {}, {}, Place(updates=updates), "a: 1"), keep=1)

    save(9)
    (tmp_path / "step-00000009" / "model.safetensors").write_bytes(b"")
    save(7)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000007"]
    assert load_checkpoint(tmp_path, pytest.fail).place.updates == 7


@pytest.mark.parametrize("form", ["table", "json", "csv", "parquet"])
def test_predictions_on_a_full_disk(films, package, script, tmp_path, form):
    """What an earlier command wrote there stays."""
    output = tmp_path / "findings"
    output.write_text("of yesterday")
    arguments = [films, "--model", package, "--format", form, "--output", output]
    load_pipeline(str(package))
    with disk_for_files_of(300):
        line = refusal("predict", script("predict", *arguments))
    assert line == f"predict: {output}: cannot be written (File too large)"
    assert output.read_text() == "of yesterday" and list(tmp_path.iterdir()) == [output]
    assert script("predict", *arguments)[0] == 0 and output.read_bytes() != b"of yesterday"


@pytest.mark.parametrize(("size", "file"), [(300, "predictions.json"), (3000, "parts/part-00000-of-00015.parquet")])
def test_an_archive_on_a_full_disk(commands, script, tmp_path, size, file):
    folder = tmp_path / "out"
    name, *arguments = commands("archive", folder)
    with disk_for_files_of(size):
        line = refusal("predict", script(name, *arguments))
    assert f"{folder / file}" in line and "File too large" in line and not leftovers(folder)
    assert script(name, *arguments)[0] == 0
    assert sum(pq.read_metadata(path).num_rows for path in folder.glob("parts/*")) == IMAGES


@pytest.mark.parametrize(("size", "said"), [(2000, "{folder}/metrics.json"), (60_000, "File too large")])
def test_a_report_on_a_full_disk(commands, script, tmp_path, size, said):
    """Where the first file is too much, and where a picture is."""
    folder = tmp_path / "out"
    name, *arguments = commands("score", folder)
    with disk_for_files_of(size):
        line = refusal("score", script(name, *arguments))
    assert said.format(folder=folder) in line and not leftovers(folder)
    assert_whole(folder)
    assert script(name, *arguments)[0] == 0 and (folder / "README.md").exists()
    assert_whole(folder)


def assert_whole(folder: Path) -> None:
    """Every file of a report that is there can be read."""
    for path in folder.glob("metrics.json"):
        json.loads(path.read_text())
    for path in folder.glob("*.parquet"):
        assert len(pd.read_parquet(path)) == IMAGES
    for path in folder.glob("plots/*.png"):
        Image.open(path).load()


def test_a_full_disk_leaves_the_pictures_of_an_earlier_report(commands, script, tmp_path):
    name, *arguments = commands("score", tmp_path / "out")
    assert script(name, *arguments)[0] == 0
    with disk_for_files_of(60_000):
        refusal("score", script(name, *arguments))
    assert_whole(tmp_path / "out")


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


def test_a_cache_on_a_full_disk(uncounted, package, films, run_python, tmp_path):
    """The weights are larger than there is room; what came of them does no harm once there is."""
    arguments = ["predict.py", films, "--model", "org/cxr", "--output", tmp_path / "out"]
    with LoopbackHub() as hub:
        hub.add("models", "org/cxr", package)
        here = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        done = run_python("-c", FULL, 20_000, *arguments, **here)
        line = refusal("predict", (done.returncode, done.stderr))
        assert line.startswith("predict: org/cxr: the model cannot be loaded, make room on the disk (")
        assert not (tmp_path / "out").exists()
        done = run_python(*arguments, **here)
    assert done.returncode == 0 and (tmp_path / "out").exists(), done.stderr
