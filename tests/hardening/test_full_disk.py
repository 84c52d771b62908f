"""A full disk: one line, nothing half-written, and once there is room, the next run works."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from loading_cxrfpn import load_pipeline
from tests.hardening.conftest import IMAGES, refusal
from tests.hubs.loopback import LoopbackHub


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
        f"prepare: {out}: the disk is full; make room and run the same command again to continue"
    )
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["prepare.json"]
    assert script("prepare", *arguments)[0] == 0


@pytest.mark.parametrize(
    ("size", "changes", "said"),
    [
        (10_000, [], "{folder}/checkpoints/step-00000002'"),
        # Larger than any module of the package, smaller than its weights.
        (25_000, ["--checkpoint-steps", 1000], "{folder}/model.safetensors: cannot be written"),
        (110_000, [], "File too large"),  # in a picture of the report, long after the last checkpoint
    ],
)
def test_train_on_a_full_disk(commands, script, tmp_path, size, changes, said):
    folder = tmp_path / "run"
    name, *arguments = [*commands("train", folder), *changes]
    with disk_for_files_of(size):
        line = refusal("train", script(name, *arguments))
    assert said.format(folder=folder) in line and line.endswith("; fix that, and continue with --resume")
    assert not leftovers(folder) and (folder / "model.safetensors").exists() == (size == 110_000)
    assert script(name, *arguments)[0] == 0
    assert not leftovers(folder) and (folder / "README.md").exists()


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
