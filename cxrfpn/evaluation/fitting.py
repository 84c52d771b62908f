"""What is fitted on validation and travels with the weights: thresholds.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import f1_score

from configuration_cxrfpn import FINDINGS
from cxrfpn.choices import GUARANTEE
from cxrfpn.evaluation.any_finding import NAMES, any_label, cross_fitted_score, fit_any_finding
from cxrfpn.evaluation.calibration import fit_calibration
from cxrfpn.evaluation.conformal import fit_limits
from cxrfpn.evaluation.folds import split_patients
from cxrfpn.evaluation.intervals import count_patients
from cxrfpn.evaluation.thresholds import MIN_PRECISION, find_operating_points, mark_thresholds
from thresholds_cxrfpn import ChosenBy, FittedOn, ThresholdsContent

# Fitted where they are measured, thresholds and probabilities would look better than they are.
FORBIDDEN_SPLITS = ("test", "all")


def fit_thresholds(
    labels: ArrayLike,
    scores: ArrayLike,
    rows: pd.DataFrame,
    *,
    dataset: str,
    split: str,
    weights_digest: str | None = None,
    min_precision: float = MIN_PRECISION,
    guarantee: float = GUARANTEE,
    pixels: Mapping[str, int | None] | None = None,
    findings: Sequence[str] = FINDINGS,
) -> ThresholdsContent:
    """Fit every operating point, the calibration and the limits of three-way calls, in the form of thresholds.json.

    The default is the operating point with the best macro F1, cross-validated over patients. Whether there is any
    finding is fitted on scores of calibrations that were fitted on other patients.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown.
        scores: [N,F] sigmoids in 0..1.
        rows: metadata of the N images: image_id, patient_id and split.
        dataset, split: what the images are, for the record.
        weights_digest: of the weights that made the scores, to which it ties the thresholds.
        min_precision: of the report's precision constraint, 0..1.
        guarantee: of three-way calls, 0..1; see `fit_limits`.
        pixels: the sizes at which the images were seen, for the record.
        findings: the names of the F findings.

    Raises:
        ValueError: the split is one that models are scored on, or an image is on the source's own test list.
    """
    if split in FORBIDDEN_SPLITS:
        raise ValueError(f"thresholds are never fitted on the split {split}; take validation")
    if (tested := (rows["split"] == "test").to_numpy()).any():
        first = rows["image_id"].iloc[int(tested.argmax())]
        raise ValueError(
            f"thresholds are never fitted on test images: {tested.sum()} of {len(rows)} are on the source's own test "
            f"list, {first} the first; take other images, or the protocol official"
        )
    labels, scores = np.asarray(labels, dtype=float), np.asarray(scores, dtype=float)
    patients = rows["patient_id"].to_numpy(str)
    default, chosen_by = choose_default(labels, scores, patients, min_precision=min_precision, findings=findings)
    fitted_on: FittedOn = {
        "dataset": portable(dataset),
        "split": split,
        "images": len(labels),
        "patients": len(np.unique(patients)),
        "positives": dict(zip(findings, (labels == 1).sum(axis=0).tolist(), strict=True)),
        "known": dict(zip(findings, (~np.isnan(labels)).sum(axis=0).tolist(), strict=True)),
        "positive_patients": dict(zip(findings, count_patients(labels == 1, patients), strict=True)),
        "minimum_precision": min_precision,
        "pixels": dict(pixels) if pixels else None,
    }
    if weights_digest is not None:
        fitted_on["weights_digest"] = weights_digest
    any_labels, any_scores = any_label(labels), cross_fitted_score(labels, scores, patients, findings)
    any_finding = fit_any_finding(any_labels, any_scores, min_precision)
    limits = fit_limits(labels, scores, patients, guarantee, findings)
    if any_finding:
        known = any_labels[~np.isnan(any_labels)]
        fitted_on["any_finding"] = {"positives": int(known.sum()), "known": len(known)}
        limits |= fit_limits(any_labels, any_scores, patients, guarantee, NAMES)
    return {
        "default": default,
        "default_chosen_by": chosen_by,
        "fitted_on": fitted_on,
        "operating_points": find_operating_points(labels, scores, min_precision=min_precision, findings=findings),
        "marked": mark_thresholds(labels, scores, min_precision=min_precision, findings=findings),
        "calibration": fit_calibration(labels, scores, findings),
        "any_finding": any_finding,
        "conformal": {"guarantee": guarantee, "limits": limits},
    }


def choose_default(
    labels: NDArray[np.float64],
    scores: NDArray[np.float64],
    patients: NDArray,
    *,
    min_precision: float,
    findings: Sequence[str] = FINDINGS,
    seed: int = 0,
) -> tuple[str, ChosenBy]:
    """Return the operating point with the best macro F1 on patients that its thresholds were not fitted on.

    The patients are dealt into folds; the images of each are called by thresholds fitted on the others, and F1 is
    computed once over all of these calls, for each finding that has positives.

    Args:
        labels, scores: [N,F], labels of 0 and 1, NaN for unknown.
        patients: [N] ids.

    Returns:
        its name, and for the record {"rule", "macro_f1": {operating point: 0..1, or None}}.
    """
    folds = list(split_patients(patients, seed))
    calls: dict[str, NDArray[np.bool_]] = {}
    for held_out, others in folds:
        points = find_operating_points(labels[others], scores[others], min_precision=min_precision, findings=findings)
        for point, thresholds in points.items():
            called = scores[held_out] >= np.array([thresholds[finding] for finding in findings])
            calls.setdefault(point, np.zeros(labels.shape, bool))[held_out] = called
    present = (labels == 1).any(axis=0)
    means = {point: _mean_f1(labels[:, present], called[:, present]) for point, called in calls.items()}
    rule = f"best macro F1 of {present.sum()} findings, cross-validated in {len(folds)} folds of patients"
    return max(means, key=lambda point: means[point] or 0.0), {"rule": rule, "macro_f1": means}


def _mean_f1(labels: NDArray[np.float64], calls: NDArray[np.bool_]) -> float | None:
    """Return the mean F1 of findings over the images in which each is known; None without findings."""
    known = ~np.isnan(labels)
    each = [
        f1_score(labels[rows, index] == 1, calls[rows, index], zero_division=0) for index, rows in enumerate(known.T)
    ]
    return float(np.mean(each)) if each else None


def portable(source: str) -> str:
    """Return a source's name without the folders above it: figures travel further than a disk's layout should."""
    kind, colon, where = source.partition(":")
    return f"{kind}:{Path(where).name}" if colon else source
