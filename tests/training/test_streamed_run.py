"""A short run from the Hub's copy of ChestX-ray14, with a local copy and without, in one process and in two."""

import csv
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hubs.loopback import LoopbackHub
from tests.hubs.repositories import COMMIT

ROOT = Path(__file__).resolve().parents[2]
NIH, PINNED = "timm/nih-chest-xray-14", "c1bf579641b3256b4d49924436984b82bee5834d"


@pytest.fixture
def hub(chests: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as loopback:
        loopback.add("datasets", NIH, chests, PINNED)
        assert COMMIT != PINNED
        yield loopback


@pytest.fixture
def train(hub, launcher, write_recipe, tmp_path) -> Callable[..., tuple[Path, list[float]]]:
    """Train by a recipe with these changes, in so many processes -> the run folder and its losses."""

    def run(name: str, processes: int = 1, **changes: object) -> tuple[Path, list[float]]:
        recipe = write_recipe(tmp_path / f"{name}.yaml", source=NIH, stored_size=64, **changes)
        done = subprocess.run(
            [*launcher(processes), "train.py", str(recipe), "--output-dir", str(tmp_path / name)],
            cwd=ROOT,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "ACCELERATE_USE_CPU": "true",
                "HF_ENDPOINT": hub.endpoint,
                "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(tmp_path / "hf"),
            },
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        last = max((tmp_path / name / "checkpoints").glob("step-*"))
        return tmp_path / name, json.loads((last / "state.json").read_text())["train_state"]["losses"]

    return run


@pytest.mark.slow
def test_with_and_without_a_local_copy_and_in_two_processes(train, tmp_path) -> None:
    cycles = [{"epochs": 1, "image_size": 64}]
    copied, losses = train("copied", cycles=cycles, prepared=str(tmp_path / "prepared"))
    streamed, streamed_losses = train("streamed", cycles=cycles, prepared="none", accumulation=2)
    assert len(losses) == len(streamed_losses) > 5
    for folder in (copied, streamed):
        assert (folder / "model.safetensors").is_file() and (folder / "thresholds.json").is_file()
        assert len(list(csv.DictReader((folder / "validation_metrics.csv").open()))) == 1
    shown = [
        (folder / "configuration.txt").read_text().split("fingerprint")[1].split()[0] for folder in (copied, streamed)
    ]
    assert shown[0] == shown[1]
    _, shared = train("shared", 2, cycles=cycles, prepared="none", batch_size=8)
    assert shared == pytest.approx(streamed_losses, abs=1e-5)
