"""Whether a radiograph has any of the findings: labels and scores of the fifteenth answer.

`Thresholds.answer_any` says how the score is made; here it is made for many images, and fitted. Cross-validated over
patients, a logistic regression on the logits, their mean, their maximum and the sum of the odds ranked validation at
most 0.005 of AUROC better: the rule is the one that has nothing of its own to fit.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.calibration import calibrate, expected_calibration_error, fit_calibration
from cxrfpn.evaluation.figures import AnyFindingFigures
from cxrfpn.evaluation.folds import split_patients
from cxrfpn.evaluation.intervals import Bootstrap, count_patients, interval
from cxrfpn.evaluation.metrics import measure
from cxrfpn.evaluation.predictions import Scored
from cxrfpn.evaluation.thresholds import describe_thresholds, find_operating_points
from thresholds_cxrfpn import ANY_FINDING, NEAREST_TO_ONE, AnyFindingFit, Thresholds

NAMES = (ANY_FINDING,)


def any_label(labels: ArrayLike) -> NDArray[np.float64]:
    """Labels [N,F] of 0, 1 and NaN -> [N,1]: 1 where one is 1, 0 where all are 0, and NaN where an unknown decides."""
    labels = np.asarray(labels, dtype=float)
    unknown = np.where(np.isnan(labels).any(axis=1), np.nan, 0.0)
    return np.where((labels == 1).any(axis=1), 1.0, unknown)[:, None]


def any_score(
    scores: ArrayLike, calibration: Mapping[str, Mapping[str, float]], findings: Sequence[str] = FINDINGS
) -> NDArray[np.float64]:
    """Scores [N,F] of findings -> the score [N,1] of any finding, over the findings that are calibrated."""
    known = np.array([finding in calibration for finding in findings])
    probabilities = calibrate(scores, calibration, findings)[:, known].clip(max=NEAREST_TO_ONE)
    return -np.expm1(np.log1p(-probabilities).sum(axis=1, keepdims=True))


def cross_fitted_score(
    labels: ArrayLike, scores: ArrayLike, patients: NDArray, findings: Sequence[str] = FINDINGS
) -> NDArray[np.float64]:
    """Return the score [N,1] of each image by a calibration that was fitted on other patients.

    Args:
        labels, scores: [N,F], labels of 0 and 1, NaN for unknown.
        patients: [N] ids.
    """
    labels, scores = np.asarray(labels, dtype=float), np.asarray(scores, dtype=float)
    result = np.empty((len(labels), 1))
    for held_out, others in split_patients(patients):
        result[held_out] = any_score(
            scores[held_out], fit_calibration(labels[others], scores[others], findings), findings
        )
    return result


def fit_any_finding(labels: NDArray[np.float64], scores: NDArray[np.float64], min_precision: float) -> AnyFindingFit:
    """Fit thresholds and calibration of the fifteenth answer, as thresholds.json keeps them.

    Args:
        labels: [N,1], as of `any_label`.
        scores: [N,1], as of `cross_fitted_score`.
        min_precision: as of `find_operating_points`.

    Returns:
        empty where the images are all with, or all without, a finding.
    """
    calibration = fit_calibration(labels, scores, NAMES)
    if not calibration:
        return {}
    points = find_operating_points(labels, scores, min_precision=min_precision, findings=NAMES)
    return {
        "rule": "noisy or of the calibrated probabilities",
        "thresholds": {name: point[ANY_FINDING] for name, point in points.items()},
        "calibration": calibration[ANY_FINDING],
    }


def measure_any_finding(scored: Scored, thresholds: Thresholds, bootstrap: Bootstrap) -> AnyFindingFigures | None:
    """Measure the fifteenth answer on a scored split.

    Returns:
        the figures of a finding, as `measure` and `score` give them, with `operating_points`; None where
        thresholds.json was fitted without it.
    """
    if not thresholds.any_finding:
        return None
    labels, scores = any_label(scored.truth), any_score(scored.scores, thresholds.calibration, scored.findings)
    points = {name: {ANY_FINDING: value} for name, value in thresholds.any_finding["thresholds"].items()}
    figures = measure(labels, scores, points[thresholds.default], NAMES)["findings"][ANY_FINDING]
    patients, known = scored.metadata["patient_id"], ~np.isnan(labels[:, 0])
    behind = [count_patients(labels == value, patients)[0] for value in (0, 1)]
    probability = calibrate(scores, {ANY_FINDING: thresholds.any_finding["calibration"]}, NAMES)[known, 0]
    truth = labels[known, 0] == 1
    return {
        **figures,
        "positive_patients": behind[1],
        "auroc_ci": interval(bootstrap.auroc(labels, scores)[:, 0], min(behind)),
        "ece_calibrated": expected_calibration_error(truth, probability) if len(truth) else None,
        "brier_calibrated": float(np.mean((probability - truth) ** 2)) if len(truth) else None,
        "operating_points": {
            name: describe_thresholds(labels, scores, point, NAMES)[ANY_FINDING] for name, point in points.items()
        },
    }
