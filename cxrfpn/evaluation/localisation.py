"""Finding maps against boxes that radiologists drew: does the map point where they saw the finding?

Maps and boxes are compared on a grid of GRID x GRID over the whole radiograph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import Box
from cxrfpn.evaluation.figures import MapFigures, MapSummary, MeanMapFigures
from cxrfpn.evaluation.intervals import Bootstrap, interval

GRID = 256
# Shares of a map's peak above which the map is taken as a region.
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
# The region that detections are drawn around: at half of the peak, as class activation maps are commonly cut.
DETECTION_LEVEL = 0.5
AP_IOU = 0.25
# A peak is near a finding within this share of the image's side from a box's centre. Whether it lies in a box depends
# on the size of the box; this does not.
NEAR = 0.1


@dataclass(frozen=True)
class Case:
    """A finding in an image that has boxes of it, and how its map fared.

    `pointing`: the peak lies in a box; `near`: it lies within NEAR of a box's centre; `iou` and `iobb` [len(LEVELS)]:
    the region against all boxes together, as intersection over union and over the region (Wang et al., 2017);
    `detections` [D,2]: confidence, and whether it matches a box at an IoU of 0.25.
    """

    image_id: str
    patient_id: str
    finding: str
    boxes: tuple[Box, ...]
    score: float
    pointing: bool
    near: bool
    iou: NDArray[np.float64]
    iobb: NDArray[np.float64]
    detections: NDArray[np.float64]


def measure_map(
    finding_map: NDArray, boxes: Sequence[Box], *, image_id: str, patient_id: str, finding: str, score: float
) -> Case:
    """Hold a map [GRID,GRID] of 0 and more, over the whole radiograph, against the finding's boxes in it.

    A map that is zero everywhere points nowhere and covers nothing. `score` in 0..1 is the finding's in this image; a
    detection's confidence is the score times the map within it, as a share of the map's peak.
    """
    peak = float(finding_map.max())
    truth = np.zeros(finding_map.shape, bool)
    for box in boxes:
        truth |= box_mask(box, len(finding_map))
    iou, iobb = [], []
    for level in LEVELS:
        region = (finding_map >= level * peak) & (peak > 0)
        both = np.count_nonzero(region & truth)
        iou.append(both / np.count_nonzero(region | truth))
        iobb.append(both / max(np.count_nonzero(region), 1))
    return Case(
        image_id=image_id,
        patient_id=patient_id,
        finding=finding,
        boxes=tuple(boxes),
        score=score,
        pointing=bool(peak > 0 and truth.flat[finding_map.argmax()]),
        near=bool(peak > 0 and _distance_to_centre(finding_map, boxes) <= NEAR),
        iou=np.array(iou),
        iobb=np.array(iobb),
        detections=_detections(finding_map / peak, boxes, score) if peak > 0 else np.zeros((0, 2)),
    )


def _distance_to_centre(finding_map: NDArray, boxes: Sequence[Box]) -> float:
    """Return how far the peak lies from the nearest centre of a box, as a share of the image's side."""
    row, column = np.unravel_index(finding_map.argmax(), finding_map.shape)
    y, x = (row + 0.5) / finding_map.shape[0], (column + 0.5) / finding_map.shape[1]
    return min(float(np.hypot(box.x + box.width / 2 - x, box.y + box.height / 2 - y)) for box in boxes)


def box_mask(box: Box, side: int) -> NDArray[np.bool_]:
    """Return the places of a side x side grid that a box covers; at least one, the box's centre."""
    centres = (np.arange(side) + 0.5) / side
    mask = np.outer(
        (centres >= box.y) & (centres <= box.y + box.height), (centres >= box.x) & (centres <= box.x + box.width)
    )
    row, column = (int(min(centre * side, side - 1)) for centre in (box.y + box.height / 2, box.x + box.width / 2))
    mask[row, column] = True
    return mask


def point_at_mean_box(cases: Sequence[Case]) -> list[Case]:
    """Return the baseline: cases of a map that always shows the finding's mean box, blind to the image.

    The mean is over the boxes of other patients; where there are none, the map is empty.
    """
    baseline = []
    for case in cases:
        others = [box for other in cases if other.finding == case.finding and other.patient_id != case.patient_id
                  for box in other.boxes]  # fmt: skip
        blind = np.zeros((GRID, GRID))
        if others:
            x, y, width, height = np.mean([(box.x, box.y, box.width, box.height) for box in others], axis=0)
            # Highest at its centre, so that the peak is one place, and above every level within the box.
            blind = box_mask(Box(case.finding, x, y, width, height), GRID).astype(float)
            blind[int((y + height / 2) * GRID), int((x + width / 2) * GRID)] += 0.01
        baseline.append(
            measure_map(
                blind,
                case.boxes,
                image_id=case.image_id,
                patient_id=case.patient_id,
                finding=case.finding,
                score=case.score,
            )
        )
    return baseline


def _place_of(finding: str) -> tuple[int, str]:
    """Where a finding stands in a table: the 14 in their order, others after them by name."""
    return (FINDINGS.index(finding) if finding in FINDINGS else len(FINDINGS)), finding


def summarise(cases: Sequence[Case], bootstrap: Bootstrap) -> MapSummary:
    """Figures of each finding that has boxes, and their means over findings, with 95 % intervals.

    Args:
        cases: one a finding and image.
        bootstrap: of the cases' patients, in the order of the cases.

    Returns:
        {"findings": {finding: figures}, "mean": figures}; figures are `boxes`, `images`, `patients`, and
        `pointing_accuracy`, `near_accuracy` and `ap25`, each with `_ci` (None with too few patients), and `iou` and
        `iobb` at each of LEVELS ({"0.1": ...}) with `mean_iou_ci` for their mean.
    """
    names = sorted({case.finding for case in cases}, key=_place_of)
    figures: dict[str, MapFigures] = {}
    resampled = {}
    once = bootstrap.once()
    for finding in names:
        chosen = np.array([case.finding == finding for case in cases])
        mine = [case for case in cases if case.finding == finding]
        resampled[finding] = _figures(mine, bootstrap.of(chosen))
        patients = len({case.patient_id for case in mine})
        figures[finding] = {
            "images": len(mine),
            "patients": patients,
            "boxes": sum(len(case.boxes) for case in mine),
            **_with_intervals({name: values[0] for name, values in _figures(mine, once.of(chosen)).items()},
                              resampled[finding], patients),
        }  # fmt: skip
    mean = {
        name: np.nanmean([figures[finding][name] for finding in names])
        for name in ("pointing_accuracy", "near_accuracy", "ap25", "mean_iou")
    }
    spread = {name: np.nanmean([resampled[finding][name] for finding in names], axis=0) for name in mean}
    levels = [str(level) for level in LEVELS]
    overall = _with_intervals(mean, spread)
    overall["iou"], overall["iobb"] = (
        {level: float(np.mean([shares[level] for shares in each])) for level in levels}
        for each in ([figures[name]["iou"] for name in names], [figures[name]["iobb"] for name in names])
    )
    return {"findings": figures, "mean": overall}


def _figures(cases: Sequence[Case], bootstrap: Bootstrap) -> dict[str, NDArray[np.float64]]:
    """Each figure in every resample: [R], or [R,len(LEVELS)]."""
    iou, iobb = (np.stack([getattr(case, name) for case in cases]) for name in ("iou", "iobb"))
    pointing, near = (np.array([getattr(case, name) for case in cases], float) for name in ("pointing", "near"))
    return {
        "pointing_accuracy": bootstrap.ratio(pointing, np.ones_like(pointing)),
        "near_accuracy": bootstrap.ratio(near, np.ones_like(near)),
        "ap25": _average_precision(cases, bootstrap),
        "mean_iou": bootstrap.ratio(iou.mean(axis=1), np.ones(len(cases))),
        "iou": bootstrap.ratio(iou, np.ones_like(iou)),
        "iobb": bootstrap.ratio(iobb, np.ones_like(iobb)),
    }


def _with_intervals(
    figures: Mapping[str, NDArray[np.float64]],
    resampled: dict[str, NDArray[np.float64]],
    patients: int | None = None,
) -> MeanMapFigures:
    measured: dict[str, object] = {}
    for name, value in figures.items():
        if np.ndim(value):
            measured[name] = dict(zip(map(str, LEVELS), map(float, value), strict=True))
        else:
            measured[name], measured[f"{name}_ci"] = float(value), interval(resampled[name], patients)
    return cast(MeanMapFigures, measured)  # its keys are those of `_figures`, some with _ci


def _average_precision(cases: Sequence[Case], bootstrap: Bootstrap) -> NDArray[np.float64]:
    """Area under precision over recall of all detections, the most confident first, in every resample."""
    owner = np.repeat(np.arange(len(cases)), [len(case.detections) for case in cases])
    confidence, hit = np.concatenate([case.detections for case in cases]).T
    order = np.argsort(-confidence, kind="stable")
    weights = bootstrap.counts[:, bootstrap.patients[owner[order]]].astype(float)
    hits = weights * hit[order]
    boxes = bootstrap.counts[:, bootstrap.patients] @ np.array([len(case.boxes) for case in cases], float)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(hits.cumsum(axis=1) / weights.cumsum(axis=1))
        return (precision * hits).sum(axis=1) / boxes


def _detections(shares: NDArray, boxes: Sequence[Box], score: float) -> NDArray[np.float64]:
    """Boxes around the connected regions above DETECTION_LEVEL; each drawn box is matched once, the best first."""
    regions, count = ndimage.label(shares >= DETECTION_LEVEL)
    peaks = ndimage.maximum(shares, regions, np.arange(1, count + 1))
    free, rows = list(boxes), []
    for index in np.argsort(-np.asarray(peaks)):
        vertical, horizontal = ndimage.find_objects(regions)[index]
        side = len(shares)
        found = Box(
            "",
            horizontal.start / side,
            vertical.start / side,
            (horizontal.stop - horizontal.start) / side,
            (vertical.stop - vertical.start) / side,
        )
        overlaps = [box_iou(found, box) for box in free]
        matched = max(overlaps, default=0) >= AP_IOU
        if matched:
            free.pop(int(np.argmax(overlaps)))
        rows.append((score * peaks[index], float(matched)))
    return np.array(rows)


def box_iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    both = max(width, 0) * max(height, 0)
    return both / (one.width * one.height + other.width * other.height - both)
