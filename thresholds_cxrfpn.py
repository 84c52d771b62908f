"""thresholds.json: the operating points of a package, and what its calibration makes of a score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .errors_cxrfpn import CxrFpnError
    from .findings_cxrfpn import FINDINGS
except ImportError:
    from errors_cxrfpn import CxrFpnError
    from findings_cxrfpn import FINDINGS

if TYPE_CHECKING:
    import numpy as np

FLAT_OPERATING_POINT = "thresholds"
# What the answer to "is anything there?" is called, beside the findings.
ANY_FINDING = "any_finding"
PRESENT, ABSENT, UNCERTAIN = CALLS = ("present", "absent", "uncertain")
# Far beyond any fit, and small enough that a probability is never NaN.
LARGEST_COEFFICIENT = 1e6
# A probability of 1 would leave no room for the others, and has no logit.
NEAREST_TO_ONE = 1 - 1e-7
MAPPINGS = (
    "operating_points", "fitted_on", "calibration", "default_chosen_by", "marked", ANY_FINDING, "conformal",
)  # fmt: skip
# A finding may be present from the first of these scores on, and may be absent up to the second.
LIMITS = ("present_from", "absent_up_to")


class PackageError(CxrFpnError):
    """Raised when a model package cannot be used."""


class ThresholdsError(PackageError):
    """Raised when a thresholds.json cannot be used."""


class FindingAnswer(TypedDict):
    """What a model says of one finding of one radiograph: score, probability and threshold in 0..1."""

    label: str
    score: float
    probability: float | None
    threshold: float
    positive: bool
    call: str | None
    map: NotRequired[np.ndarray]  # [h,w] of 0..1


class FittedOn(TypedDict, total=False):
    """What thresholds and calibration were fitted on."""

    dataset: str
    split: str
    images: int
    patients: int
    positives: dict[str, int]
    known: dict[str, int]
    positive_patients: dict[str, int]
    minimum_precision: float
    pixels: dict[str, int | None] | None
    weights_digest: str | None
    any_finding: dict[str, int]


class ChosenBy(TypedDict, total=False):
    """How the default operating point was chosen."""

    rule: str
    macro_f1: dict[str, float | None]


class AnyFindingFit(TypedDict, total=False):
    """The thresholds of any finding at each operating point, its calibration, and how its score is made."""

    rule: str
    thresholds: dict[str, float]
    calibration: dict[str, float]


class ConformalFit(TypedDict, total=False):
    """The limits of three-way calls: {finding: {"present_from", "absent_up_to"}}."""

    guarantee: float
    limits: dict[str, dict[str, float]]


class ThresholdsContent(TypedDict, total=False):
    """thresholds.json in its full form."""

    default: str
    default_chosen_by: ChosenBy
    fitted_on: FittedOn
    operating_points: dict[str, dict[str, float]]
    marked: dict[str, dict[str, str]]
    calibration: dict[str, dict[str, float]]
    any_finding: AnyFindingFit
    conformal: ConformalFit


class Thresholds:
    """The operating points of a package, and what its calibration makes of a score.

    Args:
        content: thresholds.json as read: either the full form or a flat {finding: threshold}.
        findings: the findings that it must be about, all of them and no others.

    Raises:
        ThresholdsError: a finding missing or unknown, a threshold outside 0..1, or a calibration that is no number.
    """

    def __init__(self, content: ThresholdsContent | Mapping[str, float], findings: Sequence[str] = FINDINGS):
        _check_form(content)
        if "operating_points" in content:
            full = cast(ThresholdsContent, content)
        else:
            flat = cast(dict[str, float], content)
            full = {"default": FLAT_OPERATING_POINT, "operating_points": {FLAT_OPERATING_POINT: flat}}
        self.operating_points = full["operating_points"]
        self.default = full.get("default") or next(iter(self.operating_points))
        self.fitted_on: FittedOn = full.get("fitted_on") or {}
        self.default_chosen_by: ChosenBy = full.get("default_chosen_by") or {}
        self.marked: dict[str, dict[str, str]] = full.get("marked") or {}
        self.calibration: dict[str, dict[str, float]] = full.get("calibration") or {}
        self.any_finding: AnyFindingFit = full.get("any_finding") or {}
        self.conformal: ConformalFit = full.get("conformal") or {}
        if self.default not in self.operating_points:
            raise ThresholdsError(f"thresholds.json: the default operating point {self.default!r} is not in the file")
        for name, thresholds in self.operating_points.items():
            _check_thresholds(name, thresholds, findings)
        for finding, fit in self.calibration.items():
            _check_calibration(finding, fit, findings)
        self._check_any_finding()
        self._check_conformal(findings)

    def at(self, operating_point: str | None) -> dict[str, float]:
        """Return the thresholds {finding: 0..1} of an operating point; the default one for None."""
        name = operating_point or self.default
        if name not in self.operating_points:
            known = ", ".join(self.operating_points)
            raise ThresholdsError(f"no operating point is called {name!r}; known are {known}")
        return self.operating_points[name]

    def probability(self, finding: str, logit: float) -> float | None:
        """Return the calibrated probability 0..1 (Platt, 1999); None for a finding that was not calibrated."""
        if finding not in self.calibration:
            return None
        return _calibrated(self.calibration[finding], logit)

    def call(self, finding: str, score: float) -> str | None:
        """Return one of CALLS by conformal prediction; None where the file has no limits for the finding.

        `present` is said where a score so high is rare without the finding, `absent` where one so low is rare with it;
        "rare" is at most 1 - guarantee of the films.
        """
        limits = self.conformal.get("limits", {}).get(finding)
        if limits is None:
            return None
        may_be_present, may_be_absent = score >= limits["present_from"], score <= limits["absent_up_to"]
        if may_be_present == may_be_absent:
            return UNCERTAIN
        return PRESENT if may_be_present else ABSENT

    def answer_any(self, logits: Mapping[str, float], operating_point: str | None = None) -> FindingAnswer | None:
        """Answer whether a radiograph has any of the findings, in the form of a finding's answer.

        The score is the chance that at least one is there if each were there independently: 1 - (1 - p1)(1 - p2)...
        over the calibrated probabilities (noisy or; Pearl, 1988). They are not independent, so the score is calibrated
        in its turn.

        Args:
            logits: {finding: logit}.
            operating_point: as of `at`.

        Returns:
            `label`, `score`, `probability`, `threshold`, `positive` and `call`; None where the file was not fitted.
        """
        if not self.any_finding:
            return None
        none_there = 0.0  # a logarithm: a product of many small numbers would lose digits
        for finding, fit in self.calibration.items():
            none_there += math.log1p(-min(_calibrated(fit, logits[finding]), NEAREST_TO_ONE))
        score = -math.expm1(none_there)
        nearest = min(max(score, 1 - NEAREST_TO_ONE), NEAREST_TO_ONE)
        threshold = self.any_finding["thresholds"][operating_point or self.default]
        return {
            "label": ANY_FINDING,
            "score": score,
            "probability": _calibrated(self.any_finding["calibration"], math.log(nearest / (1 - nearest))),
            "threshold": threshold,
            "positive": score >= threshold,
            "call": self.call(ANY_FINDING, score),
        }

    def _check_any_finding(self) -> None:
        if not self.any_finding:
            return
        thresholds = self.any_finding.get("thresholds")
        if not isinstance(thresholds, Mapping) or set(thresholds) != set(self.operating_points) or not self.calibration:
            raise ThresholdsError(
                f"thresholds.json: {ANY_FINDING} needs a calibration, and a threshold for each operating point; "
                "write it again with score.py"
            )
        _check_range(f"thresholds.json: {ANY_FINDING}", thresholds)
        _check_calibration(ANY_FINDING, self.any_finding.get("calibration"), (ANY_FINDING,))

    def _check_conformal(self, findings: Sequence[str]) -> None:
        if not self.conformal:
            return
        limits = self.conformal.get("limits")
        guarantee = self.conformal.get("guarantee")
        if not isinstance(limits, Mapping) or guarantee is None or not _is_number(guarantee) or not 0 < guarantee < 1:
            raise ThresholdsError("thresholds.json: conformal lacks guarantee or limits; write it again with score.py")
        for finding, pair in limits.items():
            if finding not in (*findings, ANY_FINDING) or not isinstance(pair, Mapping) or set(pair) != set(LIMITS):
                raise ThresholdsError(
                    f"thresholds.json: the limits of {finding} are not {' and '.join(LIMITS)} of a finding; "
                    "write it again with score.py"
                )
            _check_range(f"thresholds.json: the limits of {finding}", pair)


def _calibrated(fit: Mapping[str, float], logit: float) -> float:
    return sigmoid(fit["slope"] * logit + fit["intercept"])


def sigmoid(value: float) -> float:
    """Return the score 0..1 of a logit of any size."""
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _check_form(content: object) -> None:
    """Whether thresholds.json holds mappings where it has to."""
    if not isinstance(content, Mapping) or not content:
        raise ThresholdsError("thresholds.json: is no mapping of findings to thresholds; write it again with score.py")
    for key in MAPPINGS:
        if not isinstance(content.get(key) or {}, Mapping):
            raise ThresholdsError(f"thresholds.json: {key} is no mapping; write it again with score.py")
    if content.get("operating_points", True) in ({}, None) or not isinstance(content.get("default") or "", str):
        raise ThresholdsError("thresholds.json: names no operating point; write it again with score.py")


def _check_calibration(finding: str, fit: object, findings: Sequence[str]) -> None:
    numbers = [fit.get(key, math.nan) for key in ("slope", "intercept")] if isinstance(fit, Mapping) else []
    known = finding in findings and numbers
    if not known or not all(_is_number(each) and abs(each) <= LARGEST_COEFFICIENT for each in numbers):
        raise ThresholdsError(
            f"thresholds.json: the calibration of {finding} is no finite slope and intercept of a finding; "
            "write it again with score.py"
        )


def _check_thresholds(operating_point: str, thresholds: Mapping[str, float], findings: Sequence[str]) -> None:
    where = f"thresholds.json: operating point {operating_point!r}"
    if not isinstance(thresholds, Mapping):
        raise ThresholdsError(f"{where} is no mapping of findings to thresholds; write it again with score.py")
    missing, unknown = set(findings) - set(thresholds), set(thresholds) - set(findings)
    if missing or unknown:
        wrong = f"lacks {', '.join(sorted(missing))}" if missing else f"names {', '.join(sorted(unknown))}"
        raise ThresholdsError(
            f"{where} {wrong}; it needs a threshold for each of the {len(findings)} findings and no more; "
            "write it again with score.py"
        )
    _check_range(where, thresholds)


def _check_range(where: str, thresholds: Mapping[str, float]) -> None:
    for name, threshold in thresholds.items():
        if not _is_number(threshold) or not 0 <= threshold <= 1:
            raise ThresholdsError(f"{where} has {threshold!r} for {name}; a threshold lies in 0 to 1")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
