"""What many tests share: a drawn radiograph, a tiny network, a package of it on disk, the real data where present."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configuration_cxrfpn import FINDINGS, CxrFpnConfig
from image_processing_cxrfpn import CxrFpnImageProcessor
from modeling_cxrfpn import CxrFpnForImageClassification
from tests.chromium import running_browser

ROOT = Path(__file__).resolve().parents[1]
NIH_MINI = ROOT.parent / "shared" / "nih-mini"

# No test may reach the network: transformers and datasets are set offline before they are imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def nih_mini() -> Path:
    """The folder of real radiographs; the test is skipped where it is not there."""
    if not (NIH_MINI / "data").is_dir():
        pytest.skip("the real radiographs of nih-mini are not here")
    return NIH_MINI


@pytest.fixture(scope="session")
def drawing() -> np.ndarray:
    """A smooth grey drawing [200,160] uint8 from 0 to 255 with dark lungs: enough of a radiograph for file formats."""
    y, x = np.mgrid[0:1:200j, 0:1:160j]
    lungs = sum(np.exp(-(((x - cx) / 0.14) ** 2 + ((y - 0.5) / 0.3) ** 2)) for cx in (0.28, 0.72))
    body = np.clip(1.2 - 0.9 * lungs - 0.5 * np.abs(x - 0.5), 0, None)
    return np.rint(255 * (body - body.min()) / (body.max() - body.min())).astype(np.uint8)


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., CxrFpnConfig]:
    """A config of the same shape as the real one, a thousandth of its size."""

    def make(**changes: object) -> CxrFpnConfig:
        sizes = {"block_config": (1, 1, 1, 1), "growth_rate": 4, "stem_channels": 8, "pyramid_channels": 8}
        return CxrFpnConfig(**{**sizes, "image_size": 64, "image_features": 8, "head_features": 8, **changes})

    return make


@pytest.fixture
def tiny_model(tiny_config: Callable[..., CxrFpnConfig]) -> CxrFpnForImageClassification:
    torch.manual_seed(0)
    return CxrFpnForImageClassification(tiny_config()).eval()


@pytest.fixture
def radiographs() -> torch.Tensor:
    """Pixels of two radiographs as the tiny network takes them."""
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def patients() -> torch.Tensor:
    """The patients of these two: the one known, of the other only the view."""
    return torch.tensor([[0.63, 1.0, 0.0], [torch.nan, 0.0, torch.nan]])


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[..., CxrFpnConfig]) -> Path:
    """A whole model package of a tiny random network; copy it before changing it."""
    folder = tmp_path_factory.mktemp("package")
    torch.manual_seed(0)
    CxrFpnForImageClassification(tiny_config()).save_pretrained(folder)
    CxrFpnImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    points = {
        "dynamic_adjustment": dict.fromkeys(FINDINGS, 0.5),
        "youden": {name: 0.3 + 0.01 * index for index, name in enumerate(FINDINGS)},
    }
    calibration = {name: {"slope": 1.5, "intercept": -1.0} for name in FINDINGS}
    content = {"default": "dynamic_adjustment", "operating_points": points, "calibration": calibration}
    (folder / "thresholds.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess]:
    """Run this Python in a process of its own, in the repository's folder."""

    def run(*arguments: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture(scope="module")  # and no longer: it keeps an event loop running, in which others cannot start theirs
def browser() -> Iterator[Any]:
    with running_browser() as running:
        yield running
