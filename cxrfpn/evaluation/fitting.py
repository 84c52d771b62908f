"""What is fitted on validation and travels with the weights: thresholds.json."""

from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.calibration import fit_calibration
from cxrfpn.evaluation.metrics import check_scores
from cxrfpn.evaluation.thresholds import find_operating_points
from pipeline_cxrfpn import file_sha256

DEFAULT_OPERATING_POINT = "dynamic_adjustment"
# Fitted where they are judged, thresholds and probabilities would flatter themselves.
FORBIDDEN_SPLITS = ("test", "all")


def fit_thresholds(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    dataset: str,
    split: str,
    weights: Path | None = None,
    min_precision: float = 0.30,
) -> dict[str, Any]:
    """Every operating point and the calibration, in the form of thresholds.json.

    Args:
        labels: [N,14] of 0 and 1.
        scores: [N,14] sigmoids in 0..1.
        dataset, split: what the images are, for the record.
        weights: the file of weights that made the scores; its sha256 ties the thresholds to it.
        min_precision: of the report's precision constraint, 0..1.

    Raises:
        ValueError: the split is one that models are judged on.
    """
    if split in FORBIDDEN_SPLITS:
        raise ValueError(f"thresholds are never fitted on the split {split}; take validation")
    labels, scores = check_scores(labels, scores)
    fitted_on: dict[str, Any] = {
        "dataset": portable(dataset),
        "split": split,
        "images": len(labels),
        "positives": {finding: int(labels[:, index].sum()) for index, finding in enumerate(FINDINGS)},
    }
    if weights is not None:
        fitted_on["weights_sha256"] = file_sha256(weights)
    return {
        "default": DEFAULT_OPERATING_POINT,
        "fitted_on": fitted_on,
        "operating_points": find_operating_points(labels, scores, min_precision=min_precision),
        "calibration": fit_calibration(labels, scores),
    }


def portable(source: str) -> str:
    """A source's name without the folders above it: figures travel further than a disk's layout should."""
    kind, colon, where = source.partition(":")
    return f"{kind}:{Path(where).name}" if colon else source
