"""The table of ablations: on the sharp test images alone, against the reference, by scikit-learn's figures."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.sharpness import SHARP_SIDE, SIDE_COLUMN
from cxrfpn.data.sources import open_source
from cxrfpn.evaluation.scoring import Settings
from tools.ablation import FIGURES, PARTS, RELEASE, TABLES, _mean_scores, measure_rows, scores_of, table

REFERENCE = "patient"


@pytest.fixture(scope="module")
def measured(make_scored, tmp_path_factory) -> tuple[dict, dict]:
    """Two runs on a source whose every third image is blurred, and scikit-learn's mean AUROC of each."""
    folder, scored = tmp_path_factory.mktemp("ablation"), make_scored(500)
    worse = np.random.default_rng(0).random(scored.scores.shape)
    rows, sides = scored.metadata, np.where(np.arange(500) % 3, SHARP_SIDE, SHARP_SIDE - 1)
    columns = {name: rows[name].tolist() for name in ("image_id", "patient_id", "split", "fold")}
    columns |= {"image": [{"bytes": b""}] * len(rows), "findings": rows["findings"].map(list).tolist()}
    (folder / "source").mkdir()
    pq.write_table(pa.table(columns), folder / "source" / "images.parquet")
    expected, files = {}, {}
    chosen = ((rows["split"] == "test") & (sides == SHARP_SIDE)).to_numpy()
    for name, scores in ((REFERENCE, scored.scores), ("plain", worse)):
        files[name] = folder / f"{name}.parquet"
        figures = {"image_id": columns["image_id"], SIDE_COLUMN: sides, **dict(zip(FINDINGS, scores.T, strict=True))}
        pq.write_table(pa.table(figures), files[name])
        expected[name] = roc_auc_score(scored.labels[chosen], scores[chosen])
    return measure_rows(
        open_source(f"parquet:{folder / 'source'}"), files, REFERENCE, Settings(resamples=200)
    ), expected


def test_rows_are_measured_on_sharp_test_images_only(measured):
    figures, expected = measured
    for name, figure in expected.items():
        row = figures["rows"][name]
        assert row["mean_auroc"] == pytest.approx(figure, abs=1e-12)
        assert row["mean_auroc_ci"][0] < figure < row["mean_auroc_ci"][1]
    row = figures["rows"]["plain"]
    assert row["difference"] == pytest.approx(expected["plain"] - expected[REFERENCE], abs=1e-12)
    assert row["difference_ci"][1] < -0.1


def test_the_table_says_each_row_with_its_interval_and_the_reference_in_bold(measured):
    lines = table(measured[0]).splitlines()
    assert lines[2].startswith(f"| **{PARTS[REFERENCE].text}** | 0.") and lines[2].endswith("|  |")
    assert lines[3].startswith(f"| {PARTS['plain'].text} | 0.") and " | -0." in lines[3] and " to -0." in lines[3]


@pytest.mark.parametrize("title", TABLES)
def test_the_figures_in_the_tree_are_of_the_scores_in_the_tree(nih_mini, title):
    rows, reference = TABLES[title]
    figures = json.loads(FIGURES.read_text())[title]
    assert set(figures["rows"]) == {name for name in rows if scores_of(name).exists()}
    files = {name: scores_of(name) for name in figures["rows"]}
    measured = measure_rows(open_source(f"parquet:{nih_mini}"), files, reference, Settings())
    assert (measured["images"], measured["patients"]) == (figures["images"], figures["patients"])
    for name, row in figures["rows"].items():
        for figure, value in row.items():
            assert measured["rows"][name][figure] == pytest.approx(value, abs=1e-9), (name, figure)


def test_the_mean_of_two_teachers_is_of_the_same_radiographs(tmp_path):
    one = pd.DataFrame({"image_id": ["a", "b"], SIDE_COLUMN: [300, 400], **{name: [0.2, 0.4] for name in FINDINGS}})
    other = one.iloc[::-1].assign(**{name: [1.0, 0.6] for name in FINDINGS})  # the other way round
    for name, scores in (("one", one), ("other", other)):
        scores.to_parquet(tmp_path / name, index=False)
    mean = _mean_scores([tmp_path / "one", tmp_path / "other"])
    assert mean["image_id"].tolist() == ["a", "b"] and mean[SIDE_COLUMN].tolist() == [300, 400]
    np.testing.assert_allclose(mean[list(FINDINGS)], [[0.4] * 14, [0.7] * 14])
    assert set(RELEASE["teachers"].mean_of) <= set(RELEASE)
