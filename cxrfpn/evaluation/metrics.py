"""Measure a model: scikit-learn's figures over one set of labels, scores and thresholds.

A finding that is never or always present in the images has no ROC curve and no meaningful recall: its figures are
None, its name is listed under `undefined`, and it is left out of every mean over findings. An unknown label (NaN) is
left out of its finding's figures; `exact_match` and the ranking precision are over images without unknown labels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    label_ranking_average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.figures import FindingFigures, MetricFigures

# The means over the findings that are defined.
AVERAGED: tuple[Literal["precision", "recall", "specificity", "f1", "auroc", "average_precision", "brier"], ...] = (
    "precision",
    "recall",
    "specificity",
    "f1",
    "auroc",
    "average_precision",
    "brier",
)


def measure(
    labels: ArrayLike, scores: ArrayLike, thresholds: Mapping[str, float], findings: Sequence[str] = FINDINGS
) -> MetricFigures:
    """Every figure of a set of scores that needs no resampling.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown, in the order of `findings`.
        scores: [N,F] in 0..1; at or above its threshold a score is a positive call.
        thresholds: {finding: 0..1}.
        findings: the names of the F findings.

    Returns:
        `findings`: {finding: {auroc, average_precision, precision, recall, specificity, f1, accuracy, brier, threshold,
        positives, negatives, unknown, confusion [[TN, FP], [FN, TP]]}}; `macro`: the means of AVERAGED; `micro`:
        precision, recall and f1 over all decisions; `mean_auroc`; `exact_match` (the share of images with all calls
        right);
        `hamming_loss` and `accuracy` (wrong and right calls as a share of all); `label_ranking_average_precision` (as
        scikit-learn has it, an image without findings counts as 1); `undefined`: names; `images`.

    Raises:
        ValueError: other shapes, labels other than 0 and 1, scores outside 0..1, a finding without a threshold.
    """
    truth = np.asarray(labels, dtype=float)
    known = ~np.isnan(truth)
    labels, scores = check_scores(np.where(known, truth, 0), scores, findings)
    if ((scores < 0) | (scores > 1)).any():
        raise ValueError("scores must lie in 0..1; apply a sigmoid to logits first")
    if missing := [finding for finding in findings if finding not in thresholds]:
        raise ValueError(f"thresholds lack {', '.join(missing)}")
    calls = scores >= np.array([thresholds[finding] for finding in findings])
    figures: dict[str, FindingFigures] = {}
    for index, finding in enumerate(findings):
        rows = known[:, index]
        figures[finding] = {
            **_measure_ranking(labels[rows, index], scores[rows, index]),
            **_measure_calls(labels[rows, index], calls[rows, index]),
            "unknown": int((~rows).sum()),
            "threshold": float(thresholds[finding]),
        }
    micro = _precision_recall_f1(labels[known], calls[known])
    loss = float((labels != calls)[known].mean()) if known.any() else None
    whole = known.all(axis=1)
    return {
        "images": len(labels),
        "mean_auroc": _mean(figure["auroc"] for figure in figures.values()),
        "findings": figures,
        "macro": {name: _mean(figure[name] for figure in figures.values() if defined(figure)) for name in AVERAGED},
        "micro": dict(zip(("precision", "recall", "f1"), micro, strict=True)),
        "exact_match": float(accuracy_score(labels[whole], calls[whole])) if whole.any() else None,
        "hamming_loss": loss,
        "accuracy": None if loss is None else 1 - loss,
        "label_ranking_average_precision": float(label_ranking_average_precision_score(labels[whole], scores[whole]))
        if whole.any() and len(findings) > 1
        else None,
        "undefined": [finding for finding, figure in figures.items() if not defined(figure)],
    }


def defined(figure: FindingFigures) -> bool:
    """Whether a finding of `measure` is both present and absent somewhere, so that its figures mean something."""
    return figure["positives"] > 0 and figure["negatives"] > 0


def auroc_by_finding(
    labels: ArrayLike, scores: ArrayLike, findings: Sequence[str] = FINDINGS
) -> dict[str, float | None]:
    """Area under the ROC curve of each finding.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown, in the order of `findings`.
        scores: [N,F], higher for more suspicion.

    Returns:
        {finding: 0..1, or None where the finding is always or never present and the area is undefined}.
    """
    return {finding: _auroc(truth, values) for finding, truth, values in by_finding(labels, scores, findings)}


def mean_auroc(labels: ArrayLike, scores: ArrayLike, findings: Sequence[str] = FINDINGS) -> float:
    """Return the mean over the findings whose AUROC is defined; NaN where none is."""
    mean = _mean(auroc_by_finding(labels, scores, findings).values())
    return float("nan") if mean is None else mean


def by_finding(
    labels: ArrayLike, scores: ArrayLike, findings: Sequence[str] = FINDINGS
) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.float64]]]:
    """Yield each finding with the labels [K] and scores [K] of the images in which it is known.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown, in the order of `findings`.
        scores: [N,F].

    Raises:
        ValueError: as `check_scores`.
    """
    labels = np.asarray(labels, dtype=float)
    known = ~np.isnan(labels)
    truth, scores = check_scores(np.where(known, labels, 0), scores, findings)
    for index, finding in enumerate(findings):
        rows = known[:, index]
        yield finding, truth[rows, index], scores[rows, index]


def check_scores(
    labels: ArrayLike, scores: ArrayLike, findings: Sequence[str] = FINDINGS
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Labels and scores as arrays, of one shape [N,F] and fit to be measured.

    Raises:
        ValueError: other shapes, no rows, labels other than 0 and 1, scores that are not finite.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    if labels.shape != scores.shape or labels.ndim != 2 or labels.shape[1] != len(findings) or not len(labels):
        raise ValueError(f"labels and scores must both be [N,{len(findings)}], got {labels.shape} and {scores.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite numbers")
    return labels.astype(bool), scores


class _Ranking(TypedDict):
    auroc: float | None
    average_precision: float | None
    brier: float | None


class _Calls(TypedDict):
    precision: float | None
    recall: float | None
    specificity: float | None
    f1: float | None
    accuracy: float | None
    positives: int
    negatives: int
    confusion: list[list[int]]


def _measure_ranking(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> _Ranking:
    known = 0 < labels.sum() < len(labels)
    return {
        "auroc": _auroc(labels, scores),
        "average_precision": float(average_precision_score(labels, scores)) if known else None,
        "brier": float(brier_score_loss(labels, scores, pos_label=True)) if len(labels) else None,
    }


def _measure_calls(labels: NDArray[np.bool_], calls: NDArray[np.bool_]) -> _Calls:
    confusion = np.bincount(2 * labels + calls, minlength=4).reshape(2, 2)
    negatives, positives = (int(count) for count in confusion.sum(axis=1))
    known = negatives > 0 and positives > 0
    precision, recall, f1 = _precision_recall_f1(labels, calls)
    return {
        "precision": precision if known else None,
        "recall": recall if known else None,
        "specificity": float(confusion[0, 0] / negatives) if known else None,
        "f1": f1 if known else None,
        "accuracy": float(confusion.trace() / len(labels)) if len(labels) else None,
        "positives": positives,
        "negatives": negatives,
        "confusion": confusion.tolist(),
    }


def _precision_recall_f1(labels: NDArray[np.bool_], calls: NDArray[np.bool_]) -> tuple[float, float, float]:
    if not len(labels):
        return 0.0, 0.0, 0.0
    # A finding that is present but never called has a precision of 0, as the report has it.
    precision, recall, f1, _ = precision_recall_fscore_support(labels, calls, average="binary", zero_division=0)
    return float(precision), float(recall), float(f1)


def _auroc(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float | None:
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
