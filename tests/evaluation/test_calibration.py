"""Platt scaling against a known truth and scikit-learn's, errors by hand, and a shift of prevalence that is undone."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.calibration import (
    calibrate,
    expected_calibration_error,
    fit_calibration,
    reliability,
    shift_prevalence,
)
from thresholds_cxrfpn import Thresholds


def inflated(count: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, true probabilities and scores whose logits are 0.5 * the true logit + 1."""
    random = np.random.default_rng(seed)
    truth = expit(random.normal(-2, 1.2, (count, len(FINDINGS))))
    return random.random(truth.shape) < truth, truth, expit(0.5 * logit(truth) + 1)


def test_inflated_scores_become_the_probabilities_again():
    labels, truth, scores = inflated()
    calibration = fit_calibration(labels, scores)
    probabilities = calibrate(scores, calibration)
    assert np.abs(probabilities - truth).mean() < 0.01
    for finding in FINDINGS:
        assert calibration[finding]["slope"] == pytest.approx(2, abs=0.15)
        assert calibration[finding]["intercept"] == pytest.approx(-2, abs=0.15)
    for index in range(14):
        before = expected_calibration_error(labels[:, index], scores[:, index])
        after = expected_calibration_error(labels[:, index], probabilities[:, index])
        assert after < 0.015 < 0.3 < before


def test_the_fit_is_logistic_regression_and_the_pipelines_probability():
    labels, _, scores = inflated(4000)
    calibration = fit_calibration(labels, scores)
    regression = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(scores[:, :1]), labels[:, 0])
    # Platt's softened targets move it by about one image.
    assert calibration[FINDINGS[0]]["slope"] == pytest.approx(regression.coef_[0, 0], abs=0.02)
    assert calibration[FINDINGS[0]]["intercept"] == pytest.approx(regression.intercept_[0], abs=0.02)
    points = {"a": dict.fromkeys(FINDINGS, 0.5)}
    thresholds = Thresholds({"operating_points": points, "calibration": calibration})
    assert calibrate(scores, calibration)[0, 3] == pytest.approx(
        thresholds.probability(FINDINGS[3], float(logit(scores[0, 3])))
    )


def test_awkward_findings():
    """Separated perfectly: a finite slope. The wrong way round: the prevalence. Never there: no calibration."""
    labels, scores = np.zeros((100, 14), bool), np.full((100, 14), 0.5)
    labels[:20, :2] = True
    scores[:, 0] = np.where(labels[:, 0], 1.0, 0.0)
    scores[:, 1] = np.where(labels[:, 1], 0.1, 0.9)
    calibration = fit_calibration(labels, scores)
    assert list(calibration) == list(FINDINGS[:2])
    probabilities = calibrate(scores, calibration)
    assert 0.9 < probabilities[0, 0] < 1 and 0 < probabilities[99, 0] < 0.1
    assert calibration[FINDINGS[1]]["slope"] == 0 and probabilities[0, 1] == pytest.approx(0.2, abs=0.02)
    assert np.isnan(probabilities[:, 2:]).all()


def test_reliability_and_its_error_by_hand():
    probabilities = np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.7])
    labels = np.array([0, 1, 0, 1, 1, 1])
    np.testing.assert_allclose(reliability(labels, probabilities, 3), [[0.15, 0.5, 2], [0.35, 0.5, 2], [0.8, 1, 2]])
    assert expected_calibration_error(labels, probabilities, 3) == pytest.approx((0.35 + 0.15 + 0.2) / 3)
    assert expected_calibration_error([1], [0.25]) == 0.75
    constant = reliability([0, 0, 0, 1], np.full(4, 0.25), 3)  # equal probabilities share a bin
    assert constant.tolist() == [[0.25, 0.25, 4]]


def test_another_prevalence_is_followed():
    """Positives drawn three times as often: probabilities are too low, until they are shifted."""
    labels, truth, _ = inflated(60_000)
    mine, predicted = labels[:, 0], truth[:, 0]
    keep = mine | (np.random.default_rng(1).random(len(mine)) < 1 / 3)
    fitted, actual = np.array([mine.mean()]), np.array([mine[keep].mean()])
    shifted = shift_prevalence(predicted[keep, None], fitted, actual)[:, 0]
    assert expected_calibration_error(mine[keep], predicted[keep]) > 0.1
    assert expected_calibration_error(mine[keep], shifted) < 0.01
    np.testing.assert_allclose(shift_prevalence(predicted[:5, None], fitted, fitted), predicted[:5, None])
