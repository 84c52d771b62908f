"""Maps whose worth is known by construction: in the box, beside it, empty; and the baseline that looks at nothing."""

import numpy as np
import pytest

from cxrfpn.data.schema import Box
from cxrfpn.evaluation.intervals import Bootstrap
from cxrfpn.evaluation.localisation import (
    GRID,
    LEVELS,
    Case,
    box_iou,
    box_mask,
    measure_map,
    point_at_mean_box,
    summarise,
)

BOX = Box("Mass", 0.25, 0.5, 0.25, 0.125)


def case(finding_map: np.ndarray, *boxes: Box, score: float = 0.5, patient: str = "1", finding: str = "Mass") -> Case:
    return measure_map(finding_map, boxes, image_id=f"{patient}_0", patient_id=patient, finding=finding, score=score)


def hill(x: float, y: float, width: float = 0.05) -> np.ndarray:
    rows, columns = (np.mgrid[0:GRID, 0:GRID] + 0.5) / GRID
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))


def test_a_box_covers_its_share_of_the_grid():
    mask = box_mask(BOX, GRID)
    assert mask.sum() == GRID * GRID // 32
    assert mask[GRID // 2, GRID // 4] and not mask[GRID // 2 - 1, GRID // 4] and not mask[GRID // 4, GRID // 2]
    assert box_mask(Box("Mass", 0.999, 0.999, 0.0001, 0.0001), 8).sum() == 1


def test_a_map_that_is_the_box():
    perfect = case(box_mask(BOX, GRID).astype(float), BOX)
    assert perfect.pointing
    np.testing.assert_allclose([perfect.iou, perfect.iobb], 1)
    assert perfect.detections.tolist() == [[0.5, 1.0]]


def test_a_peak_counts_where_it_lies():
    assert case(hill(0.3, 0.55), BOX).pointing
    assert case(hill(0.9, 0.1), BOX, Box("Mass", 0.85, 0.05, 0.1, 0.1)).pointing  # any of the boxes
    beside = case(hill(0.3, 0.45), BOX)
    assert not beside.pointing and 0 < beside.iou[0] < 0.5


def test_a_peak_is_near_within_a_tenth_of_the_side_for_any_size_of_the_box():
    """BOX has its centre at 0.375, 0.5625; a tiny box there is as near as it is."""
    tiny = Box("Mass", 0.374, 0.5615, 0.002, 0.002)
    for box in (BOX, tiny):
        assert case(hill(0.375, 0.65), box).near and not case(hill(0.375, 0.67), box).near
        assert case(hill(0.44, 0.63), box).near and not case(hill(0.45, 0.64), box).near
    assert not case(hill(0.375, 0.65), tiny).pointing
    assert case(hill(0.9, 0.1), tiny, Box("Mass", 0.85, 0.05, 0.1, 0.1)).near  # the nearest of the boxes


def test_a_higher_cut_is_a_smaller_region():
    """A wide hill around the box: cut higher it covers less of it, and less besides it."""
    wide = case(hill(0.375, 0.5625, 0.15), BOX)
    assert (np.diff(wide.iobb) > 0).all() and (wide.iobb >= wide.iou).all()
    region = hill(0.375, 0.5625, 0.15) >= 0.7
    assert wide.iobb[LEVELS.index(0.7)] == pytest.approx((region & box_mask(BOX, GRID)).sum() / region.sum(), abs=0.01)


def test_an_empty_map_points_nowhere():
    empty = case(np.zeros((GRID, GRID)), Box("Mass", 0, 0, 1, 1))
    assert not empty.pointing and not empty.iou.any() and not empty.iobb.any() and len(empty.detections) == 0


def test_each_region_is_a_detection_and_each_box_is_found_once():
    other = Box("Mass", 0.75, 0.75, 0.125, 0.125)
    both = case(box_mask(BOX, GRID) + 0.8 * box_mask(other, GRID), BOX, other)
    assert both.detections.tolist() == [[0.5, 1.0], [0.4, 1.0]]
    one = case(box_mask(BOX, GRID) + 0.8 * box_mask(other, GRID), BOX)
    assert one.detections.tolist() == [[0.5, 1.0], [0.4, 0.0]]
    halves = box_mask(Box("", 0.25, 0.5, 0.12, 0.125), GRID) + 0.8 * box_mask(Box("", 0.38, 0.5, 0.12, 0.125), GRID)
    assert case(halves, BOX).detections.tolist() == [[0.5, 1.0], [0.4, 0.0]]


def test_box_iou_by_hand():
    assert box_iou(BOX, BOX) == 1
    assert box_iou(Box("", 0, 0, 0.5, 0.5), Box("", 0.25, 0, 0.5, 0.5)) == pytest.approx(1 / 3)
    assert box_iou(Box("", 0, 0, 0.2, 0.2), Box("", 0.5, 0.5, 0.2, 0.2)) == 0


def test_a_summary_by_finding_with_intervals():
    right, wrong = box_mask(BOX, GRID).astype(float), hill(0.9, 0.1, 0.02)
    cases = [case(right, BOX, score=0.9, patient=str(patient)) for patient in range(9)]
    cases += [case(wrong, BOX, score=0.2, patient=str(patient)) for patient in range(9, 12)]
    cases += [case(wrong, BOX, patient="30", finding="Effusion")]
    figures = summarise(cases, Bootstrap.draw([case.patient_id for case in cases], 200))
    mass = figures["findings"]["Mass"]
    assert list(figures["findings"]) == ["Effusion", "Mass"] and mass["boxes"] == mass["images"] == 12
    assert mass["patients"] == 12 and figures["findings"]["Effusion"]["pointing_accuracy_ci"] is None  # of one patient
    assert mass["pointing_accuracy"] == 0.75 and mass["ap25"] == 0.75 and mass["iou"]["0.5"] == pytest.approx(0.75)
    assert mass["pointing_accuracy_ci"][0] < 0.75 < mass["pointing_accuracy_ci"][1] <= 1
    assert figures["mean"]["pointing_accuracy"] == 0.375 and figures["mean"]["iobb"]["0.1"] == pytest.approx(0.375)


def test_confident_mistakes_cost_average_precision():
    right, wrong = box_mask(BOX, GRID).astype(float), hill(0.9, 0.1, 0.02)
    cases = [case(right, BOX, score=0.2, patient="1"), case(wrong, BOX, score=0.9, patient="2")]
    figures = summarise(cases, Bootstrap.draw(["1", "2"], 10))
    assert figures["mean"]["ap25"] == 0.25  # half of the boxes, at a precision of a half


def test_the_baseline_points_at_the_mean_box_of_other_patients():
    nothing = np.zeros((GRID, GRID))
    left, right = Box("Mass", 0.1, 0.4, 0.2, 0.2), Box("Mass", 0.2, 0.4, 0.2, 0.2)
    cases = [case(nothing, left, patient="1"), case(nothing, left, patient="1"), case(nothing, right, patient="2")]
    cases += [case(nothing, right, patient="3", finding="Hernia")]
    baseline = point_at_mean_box(cases)
    # Each sees the other patient's box only: a third of the two together, and the centre on an edge or within.
    assert [each.iou[4] for each in baseline[:3]] == pytest.approx([1 / 3] * 3, abs=0.02)
    assert not baseline[3].iou.any() and not baseline[3].pointing  # no other patient has a box of it
    whole = point_at_mean_box([case(nothing, BOX, patient=str(patient)) for patient in range(3)])
    assert all(each.pointing and each.iou.min() == 1 for each in whole)
