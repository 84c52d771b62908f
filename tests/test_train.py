"""train.py as a user runs it: a tiny folder of parquet in, a package that the pipeline loads out."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from transformers import pipeline

import train
from configuration_cxrfpn import FINDINGS

RECIPE = """
source: parquet:{source}
cycles: [{{epochs: 2, image_size: 32}}]
stored_size: 40
batch_size: 8
learning_rate: 1.0e-3
no_finding_share: 0.5
"""


def shard(path: Path, folds: list[int]) -> None:
    """Drawings in NIH's schema: two thirds have a bright square and Mass, a third are healthy."""
    random = np.random.default_rng(0)
    records = []
    for index, fold in enumerate(folds):
        pixels = random.integers(0, 120, (48, 48), dtype=np.uint8)
        names = ["Mass"] if index % 3 else []
        pixels[16:32, 16:32] += 120 if names else 0
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        records.append(
            {
                "image": {"bytes": file.getvalue(), "path": None}, "label_names": names, "image_id": f"{index:08d}_000",
                "fold": fold, "patient_id": index, "patient_age": 30 + index, "patient_sex": "F", "view_position": "PA",
            }
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(records).to_parquet(path)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    shard(tmp_path / "source" / "data" / "train-00000-of-00001.parquet", [index // 3 % 3 for index in range(48)])
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(source=tmp_path / "source"))
    return path


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["train.py", *map(str, arguments)])
    return train.main()


def test_a_run_folder_is_a_model_package(recipe, tmp_path, monkeypatch):
    assert run(monkeypatch, recipe, "--output-dir", tmp_path / "run") == 0
    content = json.loads((tmp_path / "run" / "thresholds.json").read_text())
    assert content["fitted_on"]["images"] == 18
    assert content["fitted_on"]["positives"]["Mass"] > 0 and content["fitted_on"]["positives"]["Hernia"] == 0
    epochs = list(csv.DictReader((tmp_path / "run" / "validation_metrics.csv").open()))
    assert epochs and {entry["image_size"] for entry in epochs} == {"32"}
    pipe = pipeline("chest-xray-findings", model=str(tmp_path / "run"), trust_remote_code=True)
    assert pipe.model.config.image_size == 32 and pipe.image_processor.size["height"] == 32
    assert sorted(each["label"] for each in pipe(np.arange(48 * 48).reshape(48, 48))) == sorted(FINDINGS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("dropuot: 0.3", "unknown key dropuot"),
        ("source: parquet:/nowhere", "/nowhere: holds no"),
        ("source: parquet:{folder}/healthy", "validation holds no finding with positives and negatives"),
    ],
)
def test_what_cannot_be_followed_is_one_line_and_exit_code_2(recipe, tmp_path, monkeypatch, capsys, change, said):
    shard(tmp_path / "healthy" / "data" / "train-00000-of-00001.parquet", [index % 3 for index in range(48)])
    recipe.write_text(recipe.read_text() + change.format(folder=tmp_path) + "\n")
    assert run(monkeypatch, recipe, "--output-dir", tmp_path / "run") == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()
