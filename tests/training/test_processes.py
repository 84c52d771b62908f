"""Two processes and one process in two passes: the same images, the same losses, the same validation."""

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def run(command: list[str], recipe: Path, folder: Path) -> None:
    done = subprocess.run(
        [*command, "train.py", str(recipe), "--output-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(torch.cuda.is_available(), reason="by the GPUs, the processes find each other")
def test_processes_that_do_not_know_of_each_other_are_refused(write_recipe, launcher, tmp_path):
    """Each would train as if alone, and write over what the other writes."""
    recipe, folder = write_recipe(tmp_path / "recipe.yaml"), tmp_path / "run"
    done = subprocess.run(
        [*launcher(2), "train.py", str(recipe), "--output-dir", str(folder)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "train: 2 processes were started, and accelerate knows of 1: without a GPU, set" in done.stderr
    assert not folder.exists()


def measured(folder: Path) -> tuple[list[float], list[dict[str, str]]]:
    last = max((folder / "checkpoints").glob("step-*"))
    losses = json.loads((last / "state.json").read_text())["train_state"]["losses"]
    return losses, list(csv.DictReader((folder / "validation_metrics.csv").open()))


def test_two_processes_train_as_one_in_two_passes(write_recipe, launcher, tmp_path):
    cycles = [{"epochs": 3, "image_size": 64}]  # 21 steps, the last of each epoch an uneven one
    run(launcher(2), write_recipe(tmp_path / "two.yaml", batch_size=8, cycles=cycles), tmp_path / "two")
    one = write_recipe(tmp_path / "one.yaml", batch_size=16, accumulation=2, cycles=cycles)
    run(launcher(1), one, tmp_path / "one")
    (losses, epochs), (expected, expected_epochs) = measured(tmp_path / "two"), measured(tmp_path / "one")
    assert len(losses) == len(expected) >= 20
    assert losses == pytest.approx(expected, abs=1e-5)
    assert len(set(losses)) == len(losses)
    for epoch, reference in zip(epochs, expected_epochs, strict=True):
        assert {name: float(value) for name, value in epoch.items()} == pytest.approx(
            {name: float(value) for name, value in reference.items()}, abs=1e-4
        )
