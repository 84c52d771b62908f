"""What the command writes when there is little to say."""

import json

import numpy as np
import pytest

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.predictions import Scored
from cxrfpn.evaluation.reporting import Report, save_report
from cxrfpn.evaluation.scoring import Settings, compare, probabilities, score
from thresholds_cxrfpn import Thresholds

HALF = Thresholds(dict.fromkeys(FINDINGS, 0.5))


def test_healthy_images_only_leave_everything_undefined_and_nothing_broken(make_metadata, tmp_path):
    metadata = make_metadata(40, share=0)
    scored = Scored(metadata, np.zeros((40, 14), bool), np.random.default_rng(0).random((40, 14)))
    settings = Settings(resamples=10)
    figures = {"system": "a.csv", "is_model": False, "source": "nih:x", "split": "all", "protocol": "official"}
    report = Report(figures | score(scored, HALF, settings, metadata), scored, probabilities(scored, HALF, settings))
    save_report(report, tmp_path / "out")
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["mean_auroc"] is None and figures["undefined"] == list(FINDINGS)
    assert (
        "mean AUROC undefined" in report.summary() and "Hernia              undefined: 0 positives" in report.summary()
    )
    assert (tmp_path / "out" / "README.md").read_text().startswith("# a.csv: scores")


def test_means_of_calibration_compare_the_same_findings(make_scored):
    """One finding could not be calibrated: it counts for no mean, and the means say over how many they are."""
    scored = make_scored(300)
    calibration = {name: {"slope": 1.2, "intercept": -0.5} for name in FINDINGS if name != "Hernia"}
    points = {"default": "half", "operating_points": {"half": dict.fromkeys(FINDINGS, 0.5)}}
    figures = score(scored, Thresholds({**points, "calibration": calibration}), Settings(resamples=10), scored.metadata)
    assert figures["macro"]["calibrated_findings"] == 13
    for name in ("ece", "brier", "ece_calibrated", "brier_calibrated"):
        known = [figure[name] for finding, figure in figures["findings"].items() if finding != "Hernia"]
        assert figures["macro"][name] == pytest.approx(np.mean(known)), name
    assert score(scored, HALF, Settings(resamples=10), scored.metadata)["macro"]["calibrated_findings"] == 14


def test_positives_of_few_patients_have_no_interval_and_many_do(make_scored):
    """30 positives of 3 patients are 3 draws, not 30."""
    scored = make_scored(900)
    hernia, patients = FINDINGS.index("Hernia"), scored.metadata["patient_id"]
    scored.labels[:, hernia] = patients.isin(patients.value_counts().index[:3])
    figures = score(scored, HALF, Settings(resamples=50), scored.metadata)["findings"]
    assert (figures["Hernia"]["positives"], figures["Hernia"]["positive_patients"]) == (27, 3)
    assert figures["Hernia"]["auroc"] is not None and figures["Hernia"]["auroc_ci"] is None
    mass = FINDINGS.index("Mass")
    assert figures["Mass"]["positive_patients"] == patients[scored.labels[:, mass]].nunique() > 10
    assert figures["Mass"]["auroc_ci"] is not None
    figures = compare(scored, scored, Settings(resamples=20))["findings"]
    assert figures["Hernia"]["difference_ci"] is None and figures["Mass"]["difference_ci"] == (0, 0)


def test_a_comparison_is_on_the_images_that_both_have(make_scored):
    scored = make_scored(300)
    worse = Scored(scored.metadata, scored.labels, np.random.default_rng(0).random((300, 14)))
    figures = compare(scored.of(np.arange(200)), worse.of(np.arange(299, 99, -1)), Settings(resamples=50))
    both = compare(scored.of(np.arange(100, 200)), worse.of(np.arange(100, 200)), Settings(resamples=50))
    assert figures["images"] == 100
    assert figures["findings"]["Mass"] == both["findings"]["Mass"]
