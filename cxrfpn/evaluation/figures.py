"""The figures of a scored split, as metrics.json holds them: a typed dictionary for each part of the file.

Shares and areas are 0..1 and None where they are undefined. `..._ci` is the 95 % interval of the figure before it, None
where too few patients stand behind it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from thresholds_cxrfpn import ChosenBy, FittedOn

# The lower and upper end of an interval.
Bounds = Sequence[float]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, and how both are printed."""

    value: float | None
    bounds: Bounds | None

    @classmethod
    def of(cls, figures: Mapping[str, Any], name: str) -> "Estimate":
        """Return the figure of this name from any part of metrics.json."""
        return cls(figures[name], figures[f"{name}_ci"])

    def text(self, form: str = ".3f", undefined: str = "-", no_interval: str = "no interval") -> str:
        """Return "value (low to high)"."""
        if self.value is None:
            return undefined
        if self.bounds is None:
            return f"{self.value:{form}} ({no_interval})"
        low, high = self.bounds
        return f"{self.value:{form}} ({low:{form}} to {high:{form}})"


class FindingFigures(TypedDict):
    """Figures of one finding; `confusion` is [[TN, FP], [FN, TP]]."""

    auroc: float | None
    average_precision: float | None
    brier: float | None
    precision: float | None
    recall: float | None
    specificity: float | None
    f1: float | None
    accuracy: float | None
    threshold: float
    positives: int
    negatives: int
    unknown: int
    confusion: list[list[int]]
    auroc_ci: NotRequired[Bounds | None]
    positive_patients: NotRequired[int]
    few_positives_to_fit: NotRequired[bool]
    ece: NotRequired[float]
    ece_calibrated: NotRequired[float | None]
    ece_at_prevalence: NotRequired[float]
    brier_calibrated: NotRequired[float | None]
    brier_at_prevalence: NotRequired[float]


class PointFigures(TypedDict):
    """What the threshold of an operating point does to the images of one finding."""

    threshold: float
    sensitivity: float | None
    specificity: float | None
    precision: float | None
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    few_positives: bool


class AnyFindingFigures(FindingFigures):
    """Figures of whether there is any finding."""

    operating_points: dict[str, PointFigures]


class CallFigures(TypedDict):
    """How the three-way calls of one finding keep their guarantee; see `measure_calls`."""

    shares: dict[str, float | None]
    prevalence: float | None
    prevalence_fitted: float | None
    covered_with: float | None
    covered_with_ci: Bounds | None
    covered_with_weighted: float | None
    covered_with_weighted_ci: Bounds | None
    covered_without: float | None
    covered_without_ci: Bounds | None
    covered_without_weighted: float | None
    covered_without_weighted_ci: Bounds | None
    right_present: float | None
    right_present_ci: Bounds | None
    right_present_fitted: float | None
    right_absent: float | None
    right_absent_ci: Bounds | None
    right_absent_fitted: float | None


class ThreeWayFigures(TypedDict):
    """The three-way calls of every finding, any_finding among them where it was fitted."""

    guarantee: float
    findings: dict[str, CallFigures]


class GapFigures(TypedDict):
    """Means over findings, of a group or of the gap between two."""

    auroc: float | None
    auroc_ci: Bounds | None
    sensitivity: float | None
    sensitivity_ci: Bounds | None
    specificity: float | None
    specificity_ci: Bounds | None


class GroupFindingFigures(GapFigures):
    """One finding in one group."""

    positives: int
    positive_patients: int


class GroupFigures(GapFigures):
    """A group of patients or images."""

    images: int
    patients: int
    findings: dict[str, GroupFindingFigures]


class SubgroupFigures(TypedDict):
    """The groups of one attribute, and how far they are from the largest one, `reference`."""

    groups: dict[str, GroupFigures]
    reference: str
    gaps: dict[str, GapFigures]


class PatientBaseline(TypedDict):
    """What age, view position and sex alone reach, fitted on so many images, or cross-fitted in so many folds."""

    mean_auroc: float
    findings: dict[str, float | None]
    fitted_on: int
    folds: int | None


class BaselineFigures(TypedDict):
    """The baselines that a model must beat."""

    shuffled_labels: dict[str, float]
    patient_only: NotRequired[PatientBaseline]


class MeanMapFigures(TypedDict):
    """How maps agree with boxes; `iou` and `iobb` by the cut of the map, "0.1" to "0.7"."""

    pointing_accuracy: float
    pointing_accuracy_ci: Bounds | None
    near_accuracy: float
    near_accuracy_ci: Bounds | None
    ap25: float
    ap25_ci: Bounds | None
    mean_iou: float
    mean_iou_ci: Bounds | None
    iou: dict[str, float]
    iobb: dict[str, float]


class MapFigures(MeanMapFigures):
    """How the maps of one finding agree with its boxes."""

    images: int
    patients: int
    boxes: int


class MapSummary(TypedDict):
    """The maps of every finding that has boxes, and their means."""

    findings: dict[str, MapFigures]
    mean: MeanMapFigures


class LocalisationFigures(TypedDict):
    """The model's maps, and one that always shows the finding's mean box."""

    levels: list[float]
    model: MapSummary
    mean_box: MapSummary


class LabelFigures(TypedDict):
    """AUROC by a label of another table, and by the source's own; `members` are the findings that it stands for."""

    members: list[str]
    positives: int
    negatives: int
    positive_patients: int
    auroc: float | None
    auroc_ci: Bounds | None
    auroc_own: float | None
    auroc_own_ci: Bounds | None


class OtherLabelsFigures(TypedDict):
    """The same scores by the labels of another table."""

    table: str
    images: int
    patients: int
    notes: list[str]
    labels: dict[str, LabelFigures]


class Difference(TypedDict):
    """AUROC of two systems on the same images, and the first minus the second, paired by patient."""

    first: float | None
    second: float | None
    difference: float | None
    difference_ci: Bounds | None


class Compared(TypedDict):
    """Two systems on the images that both have scored."""

    images: int
    mean_auroc: Difference
    findings: dict[str, Difference]


# Another system, `with`, beside this one.
Comparison = TypedDict(
    "Comparison", {"with": str, "images": int, "mean_auroc": Difference, "findings": dict[str, Difference]}
)


class FitCounts(TypedDict):
    """How many images do not look like upright frontal chest radiographs of adults, and the names of the least."""

    images: int
    below: int
    lowest: list[str]


class Coverage(TypedDict):
    """Of how many images the figures are, and how many others were left out."""

    images: int
    without_scores: int
    unknown: int
    elsewhere: int


class MetricFigures(TypedDict):
    """Figures of labels, scores and thresholds that need no resampling; see `measure`."""

    images: int
    mean_auroc: float | None
    findings: dict[str, FindingFigures]
    macro: dict[str, float | None]
    micro: dict[str, float]
    exact_match: float | None
    hamming_loss: float | None
    accuracy: float | None
    label_ranking_average_precision: float | None
    undefined: list[str]


class ScoredFigures(MetricFigures):
    """All figures of a scored split without localisation; see `score`."""

    mean_auroc_ci: Bounds | None
    subgroups: dict[str, SubgroupFigures]
    baselines: BaselineFigures
    fit: FitCounts | None
    any_finding: AnyFindingFigures | None
    three_way: ThreeWayFigures | None
    patients: int
    resampled: str
    resamples: int
    operating_point: str
    operating_points: dict[str, dict[str, PointFigures]]
    default_chosen_by: ChosenBy
    marked: dict[str, dict[str, str]]
    fitted_on: FittedOn
    coverage: Coverage


class Figures(ScoredFigures):
    """metrics.json."""

    system: str
    is_model: bool
    source: str
    split: str
    protocol: str
    weights_digest: NotRequired[str | None]
    unreadable: NotRequired[dict[str, str]]
    localisation: NotRequired[LocalisationFigures]
    other_labels: NotRequired[OtherLabelsFigures]
    comparison: NotRequired[Comparison]
