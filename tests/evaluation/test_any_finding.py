"""The fifteenth answer: what counts as a label, that both ways to the score agree, and what is left out."""

import numpy as np
import pandas as pd
import pytest

from answer_cxrfpn import make_answer
from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.any_finding import any_label, any_score, cross_fitted_score, measure_any_finding
from cxrfpn.evaluation.conformal import measure_three_way
from cxrfpn.evaluation.fitting import fit_thresholds
from cxrfpn.evaluation.intervals import Bootstrap
from cxrfpn.evaluation.predictions import Scored
from thresholds_cxrfpn import Thresholds


def drawn(images: int, seed: int, findings: int = 14) -> Scored:
    """Films of which the scores tell something, three a patient; some labels are unknown, the last is never there."""
    random = np.random.default_rng(seed)
    labels = random.random((images, findings)) < np.linspace(0.2, 0.05, findings)
    if findings > 1:
        labels[:, -1] = False
    scores = 1 / (1 + np.exp(-(random.normal(size=labels.shape) + 1.5 * labels - 1)))
    rows = pd.DataFrame({"image_id": np.arange(images).astype(str), "patient_id": (np.arange(images) // 3).astype(str)})
    known = random.random(labels.shape) > 0.02
    return Scored(rows.assign(split="train"), labels & known, scores, known=known, findings=FINDINGS[:findings])


def fitted(scored: Scored) -> Thresholds:
    content = fit_thresholds(
        scored.truth, scored.scores, scored.metadata, dataset="d", split="validation", findings=scored.findings
    )
    return Thresholds(content, scored.findings)


def test_an_unknown_label_hides_the_answer_only_where_it_decides():
    unknown = np.nan
    labels = [[1, 0], [0, 0], [1, unknown], [0, unknown]]
    np.testing.assert_array_equal(any_label(labels)[:, 0], [1, 0, 1, unknown])


@pytest.mark.parametrize("findings", [14, 1])
def test_the_pipelines_answer_is_the_one_that_was_measured(findings):
    scored = drawn(240, 0, findings)
    thresholds = fitted(scored)
    assert ("Hernia" in thresholds.calibration) is False  # never there in validation, and left out
    expected = any_score(scored.scores, thresholds.calibration, scored.findings)[:, 0]
    for row, score in zip(scored.scores[:20], expected[:20], strict=True):
        logits = np.log(row / (1 - row)).tolist()
        answer = make_answer(logits, scored.findings, thresholds, "youden").any_finding
        assert answer["score"] == pytest.approx(score, abs=1e-9)
        assert answer["positive"] == (score >= thresholds.any_finding["thresholds"]["youden"])
        assert 0 < answer["probability"] < 1 and answer["call"] in ("present", "absent", "uncertain")


def test_certain_scores_give_an_answer():
    thresholds = fitted(drawn(240, 0))
    for logit in (-800.0, 0.0, 800.0):
        answer = make_answer([logit] * 14, FINDINGS, thresholds).any_finding
        assert 0 <= answer["score"] <= 1 and 0 <= answer["probability"] <= 1


def test_probabilities_hold_and_scores_of_a_patient_never_come_from_a_fit_to_its_own_films():
    scored, other = drawn(3000, 1), drawn(3000, 2)
    thresholds = fitted(scored)
    figures = measure_any_finding(other, thresholds, Bootstrap.draw(other.metadata["patient_id"].to_numpy(), 50))
    assert figures["auroc_ci"][0] < figures["auroc"] < figures["auroc_ci"][1] and figures["ece_calibrated"] < 0.05
    assert figures["unknown"] == np.isnan(any_label(other.truth)).sum() > 0
    patients = scored.metadata["patient_id"].to_numpy()
    before = cross_fitted_score(scored.truth, scored.scores, patients)
    changed = scored.truth.copy()
    changed[:3] = 1 - changed[:3]
    np.testing.assert_array_equal(cross_fitted_score(changed, scored.scores, patients)[:3], before[:3])


def test_without_a_fit_there_is_no_answer_and_no_figure():
    bare, scored = Thresholds(dict.fromkeys(FINDINGS, 0.5)), drawn(60, 3)
    answer = make_answer([0.0] * 14, FINDINGS, bare)
    assert answer.any_finding is None and {finding["call"] for finding in answer} == {None}
    bootstrap = Bootstrap.draw(scored.metadata["patient_id"].to_numpy(), 5)
    assert measure_any_finding(scored, bare, bootstrap) is None and measure_three_way(scored, bare, bootstrap) is None
