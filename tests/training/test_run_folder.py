"""What a run folder holds: thresholds that hold for the package's own path from a file to its scores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.cohort import OfficialProtocol
from cxrfpn.data.labels import label_matrix
from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.schema import Source
from cxrfpn.data.sources import open_source
from cxrfpn.evaluation.fitting import fit_thresholds
from cxrfpn.evaluation.running import run_model
from cxrfpn.evaluation.scoring import select_split
from cxrfpn.training.recipe import read_recipe
from cxrfpn.training.run_folder import save_package, with_earlier_recipe
from engine_cxrfpn import Engine, load_engine

ROOT = Path(__file__).resolve().parents[2]


def scores_of(engine: Engine, source: Source) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the metadata and the scores [N,14] of a source's validation split, through the engine."""
    rows = select_split(source.metadata(), "validation", OfficialProtocol())
    scores = run_model(engine, source, rows, maps=False).scores
    rows = rows.set_index("image_id", drop=False).loc[scores.index]
    return rows, scores[list(FINDINGS)].to_numpy()


def test_thresholds_are_fitted_on_the_scores_that_the_pipeline_gives(write_recipe, chests: Path, tmp_path):
    """From the original files, larger than the prepared ones, and from the prepared folder."""
    changes = {"cohort": {"protocol": "official"}, "precision": "auto", "cycles": [{"epochs": 1, "image_size": 72}]}
    recipe = write_recipe(tmp_path / "recipe.yaml", **changes)
    # In a process of its own: accelerate keeps the first precision that a process asks for.
    command = [sys.executable, "train.py", str(recipe), "--output-dir", str(tmp_path / "run")]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    kept = json.loads((tmp_path / "run" / "thresholds.json").read_text())
    engine = load_engine(str(tmp_path / "run"))
    assert engine.pixels()["prepared_size"] == 64
    rows, scores = scores_of(engine, PhantomSource(150))
    labels = label_matrix(rows)
    again = fit_thresholds(labels, scores, rows, dataset="phantom:150", split="validation")
    assert kept["fitted_on"]["pixels"] == {"size": 72, "prepared_size": 64}
    assert kept["fitted_on"]["positive_patients"] == again["fitted_on"]["positive_patients"]
    for name, thresholds in kept["operating_points"].items():
        assert thresholds == pytest.approx(again["operating_points"][name], abs=1e-3), name
    calls = scores >= np.array([kept["operating_points"]["sensitivity_90"][name] for name in FINDINGS]) - 1e-3
    assert ((calls & labels).sum(axis=0) >= 0.9 * labels.sum(axis=0)).all()
    np.testing.assert_allclose(scores_of(engine, open_source(f"parquet:{chests}"))[1].mean(), scores.mean(), atol=1e-6)


def test_images_of_the_sources_test_list_fit_no_threshold(tiny_model, write_recipe, tmp_path):
    """The protocols `report` and `patients` may put them into validation."""
    random = np.random.default_rng(0)
    labels, scores = (random.random((300, 14)) < 0.3).astype(np.float32), random.random((300, 14), np.float32)
    tested = np.arange(300) % 3 == 0
    scores[tested] = labels[tested]  # with these, every threshold would separate better
    rows = pd.DataFrame({"image_id": np.arange(300).astype(str), "patient_id": np.arange(300).astype(str)})
    rows["split"] = np.where(tested, "test", "train")
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml"))
    save_package(tiny_model, tmp_path / "all", recipe, 64, 64, labels, scores, rows)
    save_package(tiny_model, tmp_path / "known", recipe, 64, 64, labels[~tested], scores[~tested], rows[~tested])
    fitted, expected = (json.loads((tmp_path / name / "thresholds.json").read_text()) for name in ("all", "known"))
    assert fitted["fitted_on"]["images"] == 200 and fitted == expected


def test_the_recipe_of_the_run_that_weights_come_from_stands_below_as_comments(write_recipe, tmp_path):
    (tmp_path / "first").mkdir()
    first = write_recipe(tmp_path / "first" / "recipe.yaml", seed=7)
    recipe = read_recipe(write_recipe(tmp_path / "second.yaml", backbone_weights=str(tmp_path / "first")))
    (tmp_path / "written.yaml").write_text(with_earlier_recipe(recipe))
    assert read_recipe(tmp_path / "written.yaml") == recipe
    lines = (tmp_path / "written.yaml").read_text().splitlines()
    assert [f"# {line}" for line in first.read_text().splitlines()] == lines[-len(first.read_text().splitlines()) :]
