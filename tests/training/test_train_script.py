"""train.py as a user runs it: a recipe in, a package that predict.py uses out."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import predict
import train
from configuration_cxrfpn import FINDINGS
from cxrfpn.data.phantom import draw_phantom

# Trained on 64 pixels, used at 96.
CYCLES = "[{epochs: 1, image_size: 64, validation_size: 96}]"


def run(monkeypatch, script, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", [script.__name__, *map(str, arguments)])
    return script.main()


def test_a_recipe_becomes_a_package_that_predicts(write_recipe, tmp_path, monkeypatch, capsys):
    recipe, folder = write_recipe(tmp_path / "recipe.yaml"), tmp_path / "run"
    assert run(monkeypatch, train, recipe, "--output-dir", folder, "--cycles", CYCLES) == 0
    assert f"model package: {folder}" in capsys.readouterr().out
    epochs = list(csv.DictReader((folder / "validation_metrics.csv").open()))
    assert [entry["image_size"] for entry in epochs] == ["64"]
    size = json.loads((folder / "preprocessor_config.json").read_text())["size"]
    assert size == {"height": 96, "width": 96} and json.loads((folder / "config.json").read_text())["image_size"] == 96
    fitted = json.loads((folder / "thresholds.json").read_text())
    assert fitted["fitted_on"]["split"] == "validation" and set(fitted["operating_points"]["youden"]) == set(FINDINGS)
    Image.fromarray(draw_phantom(np.random.default_rng(7), side=128)[0]).save(tmp_path / "chest.png")
    assert run(monkeypatch, predict, tmp_path / "chest.png", "--model", folder, "--format", "json") == 0
    (record,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert sorted(finding["label"] for finding in record["findings"]) == sorted(FINDINGS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dropuot", "0.3"], "unknown key dropuot"),
        (["--source", "parquet:/nowhere"], "/nowhere"),
        (["--backbone-weights", "/nowhere.pth"], "/nowhere.pth: is neither a file nor a package"),
        (["--cohort", "{protocol: patients, validation: 0.0}"], "validation"),
    ],
)
def test_what_cannot_be_followed_is_one_line_and_exit_code_2(
    write_recipe, tmp_path, monkeypatch, capsys, arguments, said
):
    recipe = write_recipe(tmp_path / "recipe.yaml")
    assert run(monkeypatch, train, recipe, "--output-dir", tmp_path / "run", *arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train: ")]
    assert len(lines) == 1 and said in lines[0]
    assert not (tmp_path / "run" / "model.safetensors").exists()
