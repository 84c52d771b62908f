"""A run small enough for a test: drawn chests, prepared once, and a network a thousandth of the real one's size."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.preparing import prepare

NETWORK = {"block_config": [1, 1, 1, 1], "growth_rate": 4, "stem_channels": 8, "pyramid_channels": 8,
           "image_features": 8, "head_features": 8}  # fmt: skip


@pytest.fixture(scope="session")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 drawn chests as a prepared folder."""
    folder = tmp_path_factory.mktemp("chests") / "prepared"
    prepare(PhantomSource(150), folder, size=64, processes=1)
    return folder


@pytest.fixture(scope="session")
def write_recipe(chests: Path) -> Callable[..., Path]:
    """Write a recipe for the drawn chests: 2 epochs of some 7 steps unless changed."""

    def write(path: Path, **changes: object) -> Path:
        values = {
            "source": f"parquet:{chests}",
            "cohort": {"protocol": "patients", "validation": 0.15, "test": 0.15},
            "cycles": [{"epochs": 2, "image_size": 64}],
            "network": NETWORK,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "warmup": 0.1,
            "weight_average": 0.9,
            "patient_dropout": 0.2,
            "precision": "fp32",
            "checkpoint_steps": 3,
        }
        path.write_text(yaml.safe_dump({**values, **changes}))
        return path

    return write


@pytest.fixture(scope="session")
def launcher() -> Callable[[int], list[str]]:
    """How to start a script in so many processes: accelerate's launcher starts several on a CPU only through MPI."""

    def command(processes: int) -> list[str]:
        several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        return [sys.executable, *(several if processes > 1 else [])]

    return command
