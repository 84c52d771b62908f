"""Present, absent or uncertain: split conformal prediction, finding by finding and label by label.

A finding's limits are chosen on validation so that of films with it at most 1 - guarantee are called absent, and of
films without it at most 1 - guarantee are called present. Each label has its own limit (Vovk, 2012: Mondrian or
label-conditional prediction): a guarantee over all films would be met by always calling a rare finding absent, and
would break where it is more frequent. This one holds there, as long as films with the finding look the same.

Films of a patient resemble each other, so patients are what is drawn: each counts once, its films sharing its weight,
and one more patient is counted, whose score could be anything (Lee, Barber and Willett, 2023: hierarchical
conformal prediction). With fewer than guarantee / (1 - guarantee) patients the limit is out of reach, and the call that
would need it is never made.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from configuration_cxrfpn import FINDINGS
from cxrfpn.choices import GUARANTEE
from cxrfpn.evaluation.any_finding import any_label, any_score
from cxrfpn.evaluation.figures import Bounds, CallFigures, ThreeWayFigures
from cxrfpn.evaluation.intervals import Bootstrap, interval
from cxrfpn.evaluation.predictions import Scored
from cxrfpn.evaluation.thresholds import MARGIN
from thresholds_cxrfpn import ABSENT, ANY_FINDING, CALLS, LIMITS, PRESENT, UNCERTAIN, Thresholds


def fit_limits(
    labels: ArrayLike,
    scores: ArrayLike,
    patients: NDArray,
    guarantee: float = GUARANTEE,
    findings: Sequence[str] = FINDINGS,
) -> dict[str, dict[str, float]]:
    """Fit the scores from which a finding may be present, and up to which it may be absent.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown.
        scores: [N,F] in 0..1.
        patients: [N] ids.
        guarantee: 0..1, exclusive.

    Returns:
        {finding: limits}, each 0..1, by their names in LIMITS.
    """
    labels, scores = np.asarray(labels, dtype=float), np.asarray(scores, dtype=float)
    limits = {}
    for index, finding in enumerate(findings):
        ill, well = labels[:, index] == 1, labels[:, index] == 0
        lowest = _limit(-scores[ill, index], patients[ill], guarantee)
        highest = _limit(scores[well, index], patients[well], guarantee)
        present_from = 0.0 if lowest is None else -lowest * (1 - MARGIN)
        absent_up_to = 1.0 if highest is None else min(highest * (1 + MARGIN), 1.0)
        limits[finding] = dict(zip(LIMITS, (present_from, absent_up_to), strict=True))
    return limits


def call_all(
    scores: NDArray[np.float64], limits: Mapping[str, Mapping[str, float]], findings: Sequence[str] = FINDINGS
) -> NDArray[np.str_]:
    """Scores [N,F] -> calls [N,F], each one of CALLS, as `Thresholds.call` makes them."""
    start, end = (np.array([limits[finding][name] for finding in findings]) for name in LIMITS)
    may_be_present, may_be_absent = scores >= start, scores <= end
    return np.where(may_be_present == may_be_absent, UNCERTAIN, np.where(may_be_present, PRESENT, ABSENT))


def measure_three_way(scored: Scored, thresholds: Thresholds, bootstrap: Bootstrap) -> ThreeWayFigures | None:
    """Measure the three-way calls of a scored split.

    Returns:
        `guarantee`, and `findings`: the figures of `measure_calls`, any_finding among them where it was fitted. None
        where thresholds.json has no limits.
    """
    if not thresholds.conformal:
        return None
    fitted, findings = thresholds.fitted_on, scored.findings
    labels, scores, ill = scored.truth, scored.scores, any_label(scored.truth)
    positives, known = dict(fitted.get("positives", {})), dict(fitted.get("known", {}))
    if thresholds.any_finding:
        labels = np.hstack([labels, ill])
        scores = np.hstack([scores, any_score(scores, thresholds.calibration, findings)])
        findings = (*findings, ANY_FINDING)
        counts = fitted.get("any_finding", {})
        positives[ANY_FINDING], known[ANY_FINDING] = counts.get("positives", 0), counts.get("known", 0)
    prevalence = {finding: positives[finding] / known[finding] for finding in findings if known.get(finding)}
    calls = call_all(scores, thresholds.conformal["limits"], findings)
    weights = _as_ill_as(ill[:, 0], prevalence.get(ANY_FINDING))
    return {
        "guarantee": thresholds.conformal["guarantee"],
        "findings": measure_calls(labels, calls, prevalence, bootstrap, weights, findings),
    }


def measure_calls(
    labels: NDArray[np.float64],
    calls: NDArray[np.str_],
    prevalence: Mapping[str, float],
    bootstrap: Bootstrap,
    weights: NDArray[np.float64] | None = None,
    findings: Sequence[str] = FINDINGS,
) -> dict[str, CallFigures]:
    """Measure how calls keep their guarantee on images that they were not fitted on, and what another prevalence does.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown.
        calls: [N,F].
        prevalence: {finding: share of positives} where the limits were fitted.
        bootstrap: resamples of the patients of the N images.
        weights: [N], of images, by which they resemble those of the fit; None where nothing is known of them.

    Returns:
        {finding: figures}: covered_with and covered_without, the shares of films with and without it that are not
        called the opposite, each patient counting once, and the same with `weights`, ..._weighted; shares, {call: share
        of films}; prevalence, and prevalence_fitted; right_present and right_absent, the shares of these calls that are
        right, and ..._fitted, what they would be at the prevalence of the fit. With intervals, ..._ci. None for 0 of 0.
    """
    return {
        finding: _measure(labels[:, index], calls[:, index], prevalence.get(finding), bootstrap, weights)
        for index, finding in enumerate(findings)
    }


def _measure(
    labels: NDArray[np.float64],
    calls: NDArray[np.str_],
    fitted: float | None,
    bootstrap: Bootstrap,
    weights: NDArray[np.float64] | None,
) -> CallFigures:
    known = ~np.isnan(labels)
    weights = None if weights is None else weights[known]
    labels, calls, bootstrap = labels[known] == 1, calls[known], bootstrap.of(known)
    present, absent = calls == PRESENT, calls == ABSENT
    figures: dict[str, object] = {
        "shares": {call: _share(calls == call) for call in CALLS},
        "prevalence": _share(labels),
        "prevalence_fitted": fitted,
    }
    for name, rows, wrong in (("with", labels, absent), ("without", ~labels, present)):
        each, count = _patient_weights(bootstrap.patients, rows), len(np.unique(bootstrap.patients[rows]))
        for suffix, whole in {"": each, "_weighted": each * (np.nan if weights is None else weights)}.items():
            figures |= _ratio(f"covered_{name}{suffix}", whole * ~wrong, whole, bootstrap, count)
    for name, called, right in ((PRESENT, present, labels), (ABSENT, absent, ~labels)):
        count = len(np.unique(bootstrap.patients[called]))
        figures |= _ratio(f"right_{name}", called & right, called, bootstrap, count)
        share = None
        if fitted is not None and labels.any() and not labels.all():
            expected = fitted if name == PRESENT else 1 - fitted
            hits, misses = expected * called[right].mean(), (1 - expected) * called[~right].mean()
            share = float(hits / (hits + misses)) if hits + misses else None
        figures[f"right_{name}_fitted"] = share
    return cast(CallFigures, figures)  # its keys are joined of names and suffixes


def _limit(strangeness: NDArray[np.float64], patients: NDArray, guarantee: float) -> float | None:
    """Return the least strangeness that covers `guarantee` of a patient's films; None where it is out of reach."""
    if not len(strangeness):
        return None
    weights = _patient_weights(patients, np.ones(len(patients), bool)) / (len(np.unique(patients)) + 1)
    order = np.argsort(strangeness)
    # The tiny allowance keeps 9 of 10 patients at a guarantee of 0.9.
    covered = np.cumsum(weights[order]) >= guarantee - 1e-9
    return float(strangeness[order][covered.argmax()]) if covered.any() else None


def _patient_weights(patients: NDArray, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return 1 / (the patient's images among `rows`) for these images, and 0 for the others."""
    _, codes = np.unique(patients, return_inverse=True)
    counts = np.bincount(codes[rows], minlength=codes.max(initial=-1) + 1)
    return np.where(rows, 1 / np.maximum(counts[codes], 1), 0.0)


def _as_ill_as(ill: NDArray[np.float64], prevalence: float | None) -> NDArray[np.float64] | None:
    """Return weights [N] by which as many images have any finding as where limits were fitted; None if it is unknown.

    Args:
        ill: [N] of 0, 1 and NaN.
    """
    share = (ill == 1).sum() / max((~np.isnan(ill)).sum(), 1)
    if prevalence is None or not 0 < share < 1:
        return None
    return np.select([ill == 1, ill == 0], [prevalence / share, (1 - prevalence) / (1 - share)], 1.0)


def _share(rows: NDArray[np.bool_]) -> float | None:
    return float(rows.mean()) if len(rows) else None


def _ratio(
    name: str, numerator: NDArray, denominator: NDArray, bootstrap: Bootstrap, patients: int
) -> dict[str, float | Bounds | None]:
    if np.isnan(denominator).any() or not denominator.any():
        return {name: None, f"{name}_ci": None}
    value = float(numerator.sum() / denominator.sum())
    return {name: value, f"{name}_ci": interval(bootstrap.ratio(numerator, denominator), patients)}
