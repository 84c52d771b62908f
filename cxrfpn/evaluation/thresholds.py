"""One threshold a finding, found on validation scores: the report's three ways and one at a fixed sensitivity.

A score at or above the threshold is a positive call. Settings and function names are those of "Computational Vision
Model for Multi-Label Classification for Chest X-Ray Dataset - DenseNet" (May 2025), on choosing thresholds. Fit on
validation, never on test: a threshold that has seen the labels it is judged by flatters itself.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.metrics import check_scores

DEFAULT_THRESHOLD = 0.5
# 0.10, 0.15, ... 0.85; rounded so that a stored threshold reads as it was meant.
THRESHOLD_GRID = np.round(np.arange(0.10, 0.851, 0.05), 2)
# With fewer positives to fit on, a threshold is mostly luck, and is marked so.
FEWEST_POSITIVES = 20


def find_optimal_thresholds_by_roc(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """The point of the ROC curve with the largest Youden's J (sensitivity + specificity - 1).

    Args:
        labels: [N,14] of 0 and 1.
        probabilities: [N,14] scores in 0..1.

    Returns:
        {finding: threshold}; 0.5 for a finding that is all negative or all positive. Of equal points the one with the
        highest threshold is taken.
    """
    labels, scores = check_scores(labels, probabilities)
    return {name: _youden(labels[:, index], scores[:, index]) for index, name in enumerate(FINDINGS)}


def find_optimal_thresholds_with_precision_constraint(
    labels: ArrayLike, probabilities: ArrayLike, *, min_precision: float = 0.30, grid: ArrayLike = THRESHOLD_GRID
) -> dict[str, float]:
    """Over the grid, the threshold with the best F1 among those whose precision is at least `min_precision`.

    Args:
        labels: [N,14] of 0 and 1.
        probabilities: [N,14] scores in 0..1.
        min_precision: 0..1.
        grid: thresholds to try, ascending.

    Returns:
        {finding: threshold}; 0.5 where no threshold of the grid is precise enough. Of equal F1 the lowest threshold.
    """
    return _constrained(*check_scores(labels, probabilities), min_precision, np.asarray(grid, dtype=float))[0]


def find_optimal_thresholds_with_dynamic_adjustment(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    min_precision: float = 0.30,
    min_f1: float = 0.30,
    adjustment: float = 0.05,
    grid: ArrayLike = THRESHOLD_GRID,
) -> dict[str, float]:
    """The precision constraint's threshold, lowered by `adjustment` where its best F1 stays under `min_f1`.

    Args:
        labels: [N,14] of 0 and 1.
        probabilities: [N,14] scores in 0..1.
        min_precision: 0..1; the report's own run used 0.40.
        min_f1: 0..1.
        adjustment: how far a weak finding's threshold is lowered, never below 0.
        grid: thresholds to try, ascending.

    Returns:
        {finding: threshold}.
    """
    labels, scores = check_scores(labels, probabilities)
    thresholds, best_f1 = _constrained(labels, scores, min_precision, np.asarray(grid, dtype=float))
    return {
        name: round(max(threshold - adjustment, 0.0), 10) if best_f1[name] < min_f1 else threshold
        for name, threshold in thresholds.items()
    }


def find_thresholds_at_sensitivity(
    labels: ArrayLike, probabilities: ArrayLike, *, sensitivity: float = 0.90
) -> dict[str, float]:
    """The highest threshold that still calls at least `sensitivity` of the positives.

    Args:
        labels: [N,14] of 0 and 1.
        probabilities: [N,14] scores in 0..1.
        sensitivity: 0..1, exclusive of 0.

    Returns:
        {finding: threshold}; 0.5 for a finding without positives.
    """
    labels, scores = check_scores(labels, probabilities)
    thresholds = {}
    for index, name in enumerate(FINDINGS):
        positives = np.sort(scores[labels[:, index], index])[::-1]
        # The tiny allowance keeps 0.9 * 10 from rounding up to 10 positives.
        needed = int(np.ceil(sensitivity * len(positives) - 1e-9))
        thresholds[name] = float(positives[needed - 1]) if len(positives) else DEFAULT_THRESHOLD
    return thresholds


def find_operating_points(
    labels: ArrayLike, probabilities: ArrayLike, *, min_precision: float = 0.30
) -> dict[str, dict[str, float]]:
    """All four ways: {operating point: {finding: threshold}}, as thresholds.json keeps them."""
    return {
        "youden": find_optimal_thresholds_by_roc(labels, probabilities),
        "precision_constraint": find_optimal_thresholds_with_precision_constraint(
            labels, probabilities, min_precision=min_precision
        ),
        "dynamic_adjustment": find_optimal_thresholds_with_dynamic_adjustment(
            labels, probabilities, min_precision=min_precision
        ),
        "sensitivity_90": find_thresholds_at_sensitivity(labels, probabilities),
    }


def describe_thresholds(
    labels: ArrayLike, probabilities: ArrayLike, thresholds: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """What each threshold does to the images it was fitted on, or to others.

    Args:
        labels: [N,14] of 0 and 1.
        probabilities: [N,14] scores in 0..1.
        thresholds: {finding: 0..1}.

    Returns:
        {finding: {threshold, sensitivity, specificity, precision (None for 0 of 0), true_positives, false_positives,
        true_negatives, false_negatives, few_positives}}.
    """
    labels, scores = check_scores(labels, probabilities)
    table = {}
    for index, finding in enumerate(FINDINGS):
        truth, calls = labels[:, index], scores[:, index] >= thresholds[finding]
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


def _youden(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    if labels.all() or not labels.any():
        return DEFAULT_THRESHOLD
    false_positive_rate, true_positive_rate, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    best = int(np.argmax(true_positive_rate[1:] - false_positive_rate[1:])) + 1  # the first point calls nothing
    return float(thresholds[best])


def _constrained(
    labels: NDArray[np.bool_], scores: NDArray[np.float64], min_precision: float, grid: NDArray[np.float64]
) -> tuple[dict[str, float], dict[str, float]]:
    """The best threshold of the grid and its F1, for every finding; (0.5, 0) where none is precise enough."""
    called = scores[None] >= grid[:, None, None]
    true_positives = (called & labels).sum(axis=1).astype(float)
    positive_calls, positives = called.sum(axis=1), labels.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(true_positives / positive_calls)
        f1 = np.nan_to_num(2 * true_positives / (positive_calls + positives))
    f1 = np.where(precision >= min_precision, f1, -1.0)
    best = f1.argmax(axis=0)
    found = f1.max(axis=0) >= 0
    thresholds = {
        name: float(grid[best[index]]) if found[index] else DEFAULT_THRESHOLD for index, name in enumerate(FINDINGS)
    }
    return thresholds, {name: max(float(f1[best[index], index]), 0.0) for index, name in enumerate(FINDINGS)}
