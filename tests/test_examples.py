"""The examples do what their first lines say, on phantoms and the tiny network."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from loading_cxrfpn import load_pipeline

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run an example in this process, with its arguments."""

    def run(name: str, *arguments: object) -> None:
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")

    return run


@pytest.fixture
def ward(tmp_path: Path, drawing: np.ndarray) -> Path:
    """Twelve drawings, half of them with a bright corner, which is the finding "Corner"."""
    random = np.random.default_rng(0)
    rows = []
    for index in range(12):
        pixels = drawing.astype(float) + random.normal(0, 10, drawing.shape)
        if index % 2:
            pixels[120:, 60:] += 150
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{index}.png")
        known = "" if index == 0 else -1 if index == 1 else index % 2
        rows.append({"image": f"{index}.png", "age": 40 + index if index > 2 else None, "sex": "F", "TB": 0,
                     "Corner": known, "patient_id": index // 2 if index > 3 else index})  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "ward.csv", index=False)
    return tmp_path / "ward.csv"


def test_finetune_with_trainer(example, ward, package, drawing, tmp_path):
    pd.read_csv(ward).drop(columns="patient_id").to_csv(ward, index=False)
    example("finetune_with_trainer.py", ward, tmp_path / "out", "--model", package, "--epochs", 1, "--batch-size", 4)
    pipe = load_pipeline(str(tmp_path / "out"))
    assert sorted(finding["label"] for finding in pipe(drawing)) == ["Corner", "TB"]
    assert pipe.model.config.findings == ("TB", "Corner")


def test_linear_probe(example, ward, package, capsys):
    example("linear_probe.py", ward.parent, ward, "--finding", "Corner", "--model", package, "--folds", 3)
    found = re.search(r"Corner: AUROC (\S+) \((\S+) to (\S+)\) on 10 radiographs", capsys.readouterr().out)
    auroc, low, high = map(float, found.groups())
    assert low <= auroc <= high and auroc > 0.8
