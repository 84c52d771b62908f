"""One threshold for each finding, fitted on validation scores: the report's three ways and one at a fixed sensitivity.

A score at or above the threshold is a positive call. Settings and function names are those of "Computational Vision
Model for Multi-Label Classification for Chest X-Ray Dataset - DenseNet" (May 2025), on choosing thresholds. Fit on
validation, never on test: figures at a threshold that was fitted on the same labels are too good.

No finding is left with a threshold that calls nothing: where the minimum precision is out of reach, the threshold with
the best F1 is taken, and where there are no positives to fit on, the one that calls the highest 1 % of the scores.
`mark_thresholds` names these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from configuration_cxrfpn import FINDINGS
from cxrfpn.choices import MIN_PRECISION
from cxrfpn.evaluation.figures import PointFigures
from cxrfpn.evaluation.metrics import by_finding

# 0.10, 0.15, ... 0.85; rounded so that a stored threshold reads as it was meant.
THRESHOLD_GRID = np.round(np.arange(0.10, 0.851, 0.05), 2)
# With fewer positives to fit on, a threshold is mostly luck, and is marked so.
FEWEST_POSITIVES = 20
# The share of the images that is called where no positive says how many should be.
UNFITTED_SHARE = 0.01
# A fitted threshold lies this share below the score that it must still call: a score in single precision and the same
# score in double precision differ by less.
MARGIN = 1e-6

NO_POSITIVES = f"no positives to fit on: calls the highest {100 * UNFITTED_SHARE:.0f} % of the scores"
NO_PRECISION = "no threshold has the minimum precision: has the best F1 instead"


def find_optimal_thresholds_by_roc(
    labels: ArrayLike, probabilities: ArrayLike, *, findings: Sequence[str] = FINDINGS
) -> dict[str, float]:
    """Find the point of the ROC curve with the largest Youden's J (sensitivity + specificity - 1).

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown.
        probabilities: [N,F] scores in 0..1.

    Returns:
        {finding: threshold}. Of equal points the one with the highest threshold is taken.
    """
    return {name: _youden(truth, scores) for name, truth, scores in by_finding(labels, probabilities, findings)}


def find_optimal_thresholds_with_precision_constraint(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    min_precision: float = MIN_PRECISION,
    grid: ArrayLike = THRESHOLD_GRID,
    findings: Sequence[str] = FINDINGS,
) -> dict[str, float]:
    """Find, over the grid, the threshold with the best F1 among those whose precision is at least `min_precision`.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown.
        probabilities: [N,F] scores in 0..1.
        min_precision: 0..1.
        grid: thresholds to try, ascending.

    Returns:
        {finding: threshold}. Of equal F1 the lowest threshold; where no threshold of the grid is precise enough, the
        score with the best F1, at any precision.
    """
    searches = _search_all(labels, probabilities, min_precision, grid, findings)
    return {name: search.threshold for name, search in searches.items()}


def find_optimal_thresholds_with_dynamic_adjustment(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    min_precision: float = MIN_PRECISION,
    min_f1: float = 0.30,
    adjustment: float = 0.05,
    grid: ArrayLike = THRESHOLD_GRID,
    findings: Sequence[str] = FINDINGS,
) -> dict[str, float]:
    """Find the precision constraint's threshold, and lower it by `adjustment` where its best F1 is under `min_f1`.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown.
        probabilities: [N,F] scores in 0..1.
        min_precision: 0..1; the report's own run used 0.40.
        min_f1: 0..1.
        adjustment: how far a weak finding's threshold is lowered, never below 0.
        grid: thresholds to try, ascending.

    Returns:
        {finding: threshold}. A threshold that already stands in for one with the minimum precision is not lowered.
    """
    searches = _search_all(labels, probabilities, min_precision, grid, findings)
    return {
        name: round(max(search.threshold - adjustment, 0.0), 10)
        if search.f1 < min_f1 and search.instead is None
        else search.threshold
        for name, search in searches.items()
    }


def find_thresholds_at_sensitivity(
    labels: ArrayLike, probabilities: ArrayLike, *, sensitivity: float = 0.90, findings: Sequence[str] = FINDINGS
) -> dict[str, float]:
    """Find the highest threshold that still calls at least `sensitivity` of the positives.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown.
        probabilities: [N,F] scores in 0..1.
        sensitivity: 0..1, exclusive of 0.

    Returns:
        {finding: threshold}.
    """
    thresholds = {}
    for name, truth, scores in by_finding(labels, probabilities, findings):
        positives = np.sort(scores[truth])[::-1]
        # The tiny allowance keeps 0.9 * 10 from rounding up to 10 positives.
        needed = int(np.ceil(sensitivity * len(positives) - 1e-9))
        thresholds[name] = _just_below(positives[needed - 1]) if len(positives) else _highest_share(scores)
    return thresholds


def find_operating_points(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    min_precision: float = MIN_PRECISION,
    findings: Sequence[str] = FINDINGS,
) -> dict[str, dict[str, float]]:
    """Fit all four ways: {operating point: {finding: threshold}}, as thresholds.json keeps them."""
    return {
        "youden": find_optimal_thresholds_by_roc(labels, probabilities, findings=findings),
        "precision_constraint": find_optimal_thresholds_with_precision_constraint(
            labels, probabilities, min_precision=min_precision, findings=findings
        ),
        "dynamic_adjustment": find_optimal_thresholds_with_dynamic_adjustment(
            labels, probabilities, min_precision=min_precision, findings=findings
        ),
        "sensitivity_90": find_thresholds_at_sensitivity(labels, probabilities, findings=findings),
    }


def mark_thresholds(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    min_precision: float = MIN_PRECISION,
    findings: Sequence[str] = FINDINGS,
) -> dict[str, dict[str, str]]:
    """Return {operating point: {finding: why its threshold is not what the operating point asks for}}.

    Operating points without such a finding are left out.
    """
    searches = _search_all(labels, probabilities, min_precision, THRESHOLD_GRID, findings)
    instead = {name: search.instead for name, search in searches.items() if search.instead}
    lacking = {name: reason for name, reason in instead.items() if reason == NO_POSITIVES}
    marks = {
        "youden": lacking,
        "precision_constraint": instead,
        "dynamic_adjustment": instead,
        "sensitivity_90": lacking,
    }
    return {point: findings for point, findings in marks.items() if findings}


def describe_thresholds(
    labels: ArrayLike, probabilities: ArrayLike, thresholds: Mapping[str, float], findings: Sequence[str] = FINDINGS
) -> dict[str, PointFigures]:
    """Count what each threshold does to the images it was fitted on, or to others.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown.
        probabilities: [N,F] scores in 0..1.
        thresholds: {finding: 0..1}.

    Returns:
        {finding: {threshold, sensitivity, specificity, precision (None for 0 of 0), true_positives, false_positives,
        true_negatives, false_negatives, few_positives}}.
    """
    table: dict[str, PointFigures] = {}
    for finding, truth, scores in by_finding(labels, probabilities, findings):
        calls = scores >= thresholds[finding]
        hits, false_alarms = int((truth & calls).sum()), int((~truth & calls).sum())
        misses, rest = int((truth & ~calls).sum()), int((~truth & ~calls).sum())
        table[finding] = {
            "threshold": float(thresholds[finding]),
            "sensitivity": _share(hits, hits + misses),
            "specificity": _share(rest, rest + false_alarms),
            "precision": _share(hits, hits + false_alarms),
            "true_positives": hits,
            "false_positives": false_alarms,
            "true_negatives": rest,
            "false_negatives": misses,
            "few_positives": hits + misses < FEWEST_POSITIVES,
        }
    return table


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _just_below(score: float) -> float:
    return float(score) * (1 - MARGIN)


def _highest_share(scores: NDArray[np.float64]) -> float:
    """Return the threshold for a finding without positives."""
    called = max(round(UNFITTED_SHARE * len(scores)), 1)
    return _just_below(np.sort(scores)[-called]) if len(scores) else 1.0


def _youden(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    if not labels.any():
        return _highest_share(scores)
    if labels.all():
        return _just_below(scores.min())
    false_positive_rate, true_positive_rate, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    best = int(np.argmax(true_positive_rate[1:] - false_positive_rate[1:])) + 1  # the first point calls nothing
    return _just_below(thresholds[best])


@dataclass(frozen=True)
class _Search:
    """What a search over the grid found; `instead` says why the threshold is not of the grid, if it is not."""

    threshold: float
    f1: float
    instead: str | None = None


def _search_all(
    labels: ArrayLike, probabilities: ArrayLike, min_precision: float, grid: ArrayLike, findings: Sequence[str]
) -> dict[str, _Search]:
    grid = np.asarray(grid, dtype=float)
    return {
        name: _search(truth, scores, min_precision, grid)
        for name, truth, scores in by_finding(labels, probabilities, findings)
    }


def _search(
    labels: NDArray[np.bool_], scores: NDArray[np.float64], min_precision: float, grid: NDArray[np.float64]
) -> _Search:
    if not labels.any():
        return _Search(_highest_share(scores), 0.0, NO_POSITIVES)
    calls = scores >= grid[:, None]
    hits, called = (calls & labels).sum(axis=1), calls.sum(axis=1)
    f1 = 2 * hits / (called + labels.sum())
    f1[hits < min_precision * called - 1e-9] = 0  # the tiny allowance keeps 3 of 10 at a precision of 0.3
    best = int(f1.argmax())
    if f1[best] > 0:
        return _Search(float(grid[best]), float(f1[best]))
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))[:-1]
    best = int(f1.argmax())
    return _Search(_just_below(thresholds[best]), float(f1[best]), NO_PRECISION)
