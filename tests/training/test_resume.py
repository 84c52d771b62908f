"""Killed with kill -9 wherever it hurts and resumed, a run ends in the very bytes of one that was left alone."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.starter import ROOT, Starter
from tests.training import killer

NOWHERE = "nowhere", 0
IN_AN_EPOCH = "cxrfpn.training.loop:train_step", 5
IN_VALIDATION = "cxrfpn.training.validation:gather_object", 1
IN_A_CHECKPOINT = "cxrfpn.training.checkpoint:_sync", 3
IN_A_PACKAGE = "cxrfpn.training.run_folder:fit_thresholds", 1


def check_kills(train: Callable[..., int], kills: tuple[tuple[str, int], ...], folder: Path, log: Path) -> None:
    """Run `train` undisturbed, and in another folder killed at these places one after the other."""
    assert train(folder / "alone", *NOWHERE) == 0, log.read_text()[-3000:]
    for number, (where, call) in enumerate(kills):
        code = train(folder / "killed", where, call, *(["--resume"] if number else []))
        assert code not in (0, 2, 130), (where, log.read_text()[-3000:])
    assert train(folder / "killed", *NOWHERE, "--resume") == 0, log.read_text()[-3000:]
    for name in ("model.safetensors", "thresholds.json", "validation_metrics.csv", "predictions.parquet"):
        assert (folder / "killed" / name).read_bytes() == (folder / "alone" / name).read_bytes(), name
    assert losses(folder / "killed") == losses(folder / "alone")
    assert not list((folder / "killed").glob("**/*.tmp"))


def test_killed_anywhere_and_resumed_it_ends_in_the_same_bytes(write_recipe, tmp_path):
    recipe, log = write_recipe(tmp_path / "recipe.yaml"), tmp_path / "log"
    with Starter(killer.__name__, log, {}) as starter:

        def train(folder: Path, where: str, call: int, *options: str) -> int | None:
            starter.start([where, str(call), str(recipe), "--output-dir", str(folder), *options])
            return starter.wait(300)

        check_kills(train, (IN_AN_EPOCH, IN_A_CHECKPOINT, IN_VALIDATION, IN_A_PACKAGE), tmp_path, log)


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_end_in_the_same_bytes(write_recipe, launcher, tmp_path):
    recipe, log = write_recipe(tmp_path / "recipe.yaml", batch_size=8), tmp_path / "log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}

    def train(folder: Path, where: str, call: int, *options: str) -> int:
        command = [*launcher(2), killer.__file__, where, str(call), str(recipe), "--output-dir", str(folder), *options]
        with log.open("ab") as said:
            return subprocess.run(command, cwd=ROOT, env=environment, stdout=said, stderr=said, timeout=300).returncode

    check_kills(train, (IN_AN_EPOCH, IN_A_PACKAGE), tmp_path, log)


def losses(folder: Path) -> list[float]:
    last = max((folder / "checkpoints").glob("step-*"))
    return json.loads((last / "state.json").read_text())["train_state"]["losses"]
