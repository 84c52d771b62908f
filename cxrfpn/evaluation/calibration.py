"""From scores to probabilities: Platt scaling, its error, and a prevalence that is not the one it was fitted at.

A weighted loss and balanced training data inflate scores on purpose: they rank well and mean nothing as probabilities.
A slope and an intercept a finding, fitted on validation, correct that. They hold for the prevalence of validation:
where a finding is more frequent, every probability is too low, and `shift_prevalence` moves the odds by the ratio of
both prevalences' odds (Saerens, Latinne and Decaestecker, 2002). It presumes that a disease looks the same in both
places and only comes more often; it does not correct for a new scanner, or for another kind of patient. The new
prevalence must be known: estimated from the scores alone it runs to 0 or 1 where they tell little.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.metrics import by_finding

BINS = 10
# Scores of exactly 0 or 1 have no finite logit; float32's sigmoid gets no nearer to 1 than this.
_NEAREST_TO_CERTAIN = 1e-7


def fit_calibration(
    labels: ArrayLike, scores: ArrayLike, findings: Sequence[str] = FINDINGS
) -> dict[str, dict[str, float]]:
    """Fit probability = sigmoid(slope * logit(score) + intercept), finding by finding, on validation.

    Platt (1999), with his softened targets, so that a perfectly separated finding still gets a finite slope. A slope is
    never negative: where higher scores meant less disease, the probability is the prevalence.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown.
        scores: [N,F] in 0..1.

    Returns:
        {finding: {"slope", "intercept"}}, without the findings that are always or never present.
    """
    return {
        finding: _platt(truth, _logit(values))
        for finding, truth, values in by_finding(labels, scores, findings)
        if 0 < truth.sum() < len(truth)
    }


def calibrate(
    scores: ArrayLike, calibration: Mapping[str, Mapping[str, float]], findings: Sequence[str] = FINDINGS
) -> NDArray[np.float64]:
    """Scores [N,F] -> probabilities [N,F]; NaN for a finding that was not calibrated."""
    missing = {"slope": np.nan, "intercept": np.nan}
    fits = [calibration.get(finding, missing) for finding in findings]
    slopes, intercepts = (np.array([fit[key] for fit in fits], float) for key in ("slope", "intercept"))
    return expit(slopes * _logit(np.asarray(scores, float)) + intercepts)


def shift_prevalence(probabilities: ArrayLike, fitted: ArrayLike, actual: ArrayLike) -> NDArray[np.float64]:
    """Bring probabilities [N,F] that hold at one prevalence [F] to another [F], both 0..1 and neither 0 nor 1."""
    return expit(_logit(np.asarray(probabilities, float)) + logit(actual) - logit(fitted))


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> NDArray[np.float64]:
    """Return predicted and observed shares, in bins of equally many images.

    Bins of equal width would put nearly every image of a rare finding into the first one (Nixon et al., 2019).

    Args:
        labels: [N] of 0 and 1.
        probabilities: [N] in 0..1.

    Returns:
        [bins,3]: mean probability, share of positives, images. Fewer bins where there are fewer images.
    """
    order = np.argsort(probabilities)
    labels, probabilities = np.asarray(labels, float)[order], np.asarray(probabilities, float)[order]
    # Equal probabilities share the bin of the first of them: in two bins they would seem to differ.
    which = np.searchsorted(probabilities, probabilities) * bins // len(probabilities)
    pieces = [which == name for name in np.unique(which)]
    return np.array([(probabilities[piece].mean(), labels[piece].mean(), piece.sum()) for piece in pieces])


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> float:
    """ECE (Naeini et al., 2015): the mean distance between what was said and what was so, over `reliability`'s bins."""
    predicted, observed, images = reliability(labels, probabilities, bins).T
    return float(np.average(np.abs(predicted - observed), weights=images))


def _logit(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return logit(np.clip(scores, _NEAREST_TO_CERTAIN, 1 - _NEAREST_TO_CERTAIN))


def _platt(labels: NDArray[np.bool_], logits: NDArray[np.float64]) -> dict[str, float]:
    positives = labels.sum()
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))

    def loss(fit: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values = fit[0] * logits + fit[1]
        residuals = expit(values) - targets
        value = np.logaddexp(0, values) - targets * values
        return float(value.mean()), np.array([(residuals * logits).mean(), residuals.mean()])

    start = np.array([1.0, logit(targets.mean()) - logits.mean()])
    slope, intercept = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)],
                                options={"ftol": 1e-14, "gtol": 1e-10}).x  # fmt: skip
    return {"slope": float(slope), "intercept": float(intercept)}
