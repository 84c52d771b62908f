"""Killed with kill -9 wherever it hurts and resumed, a run ends in the very bytes of one that was left alone."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# train.py, but the process kills itself on entering a function for the n-th time: nothing gets to tidy up.
KILLER = """
import importlib, os, signal, sys
where, n = sys.argv[1], int(sys.argv[2])
sys.argv = ["train.py", *sys.argv[3:]]
if where != "nowhere":
    module, name = where.split(":")
    module = importlib.import_module(module)
    function, calls = getattr(module, name), []
    def counting(*args, **kwargs):
        calls.append(1)
        if len(calls) == n and os.environ.get("RANK", "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    setattr(module, name, counting)
import train
sys.exit(train.main())
"""
IN_AN_EPOCH = "cxrfpn.training.loop:train_step", 5
IN_VALIDATION = "cxrfpn.training.validation:gather_object", 1
IN_A_CHECKPOINT = "cxrfpn.training.checkpoint:_sync", 3
IN_A_PACKAGE = "cxrfpn.training.run_folder:fit_thresholds", 1


def run(command: list[str], recipe: Path, folder: Path, where: str = "nowhere", n: int = 0, resume: bool = False):
    driver = folder.parent / "driver.py"
    driver.write_text(KILLER)
    arguments = [where, str(n), str(recipe), "--output-dir", str(folder), *(["--resume"] if resume else [])]
    return subprocess.run(
        [*command, str(driver), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_anywhere_and_resumed_it_ends_in_the_same_bytes(write_recipe, launcher, tmp_path, processes):
    recipe = write_recipe(tmp_path / "recipe.yaml", batch_size=16 // processes)
    left_alone = run(launcher(processes), recipe, tmp_path / "alone")
    assert left_alone.returncode == 0, left_alone.stderr[-3000:]
    folder = tmp_path / "killed"
    kills = (
        (IN_AN_EPOCH, IN_A_CHECKPOINT, IN_VALIDATION, IN_A_PACKAGE) if processes == 1 else (IN_AN_EPOCH, IN_A_PACKAGE)
    )
    for number, (where, n) in enumerate(kills):
        killed = run(launcher(processes), recipe, folder, where, n, resume=number > 0)
        assert killed.returncode not in (0, 2, 130), (where, killed.stdout[-2000:], killed.stderr[-2000:])
    done = run(launcher(processes), recipe, folder, resume=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("model.safetensors", "thresholds.json", "validation_metrics.csv", "predictions.parquet"):
        assert (folder / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    assert losses(folder) == losses(tmp_path / "alone")
    assert not list(folder.glob("**/*.tmp"))


def losses(folder: Path) -> list[float]:
    last = max((folder / "checkpoints").glob("step-*"))
    return json.loads((last / "state.json").read_text())["train_state"]["losses"]
