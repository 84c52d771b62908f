"""Each rule of the report against a plain loop over it, and its edges: ties, defaults, the adjustment."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.fitting import fit_thresholds
from cxrfpn.evaluation.thresholds import (
    THRESHOLD_GRID,
    describe_thresholds,
    find_operating_points,
    find_optimal_thresholds_by_roc,
    find_optimal_thresholds_with_dynamic_adjustment,
    find_optimal_thresholds_with_precision_constraint,
    find_thresholds_at_sensitivity,
)
from thresholds_cxrfpn import Thresholds


def of_one(find, labels: list[int], scores: list[float], **settings: object) -> float:
    """The threshold of the first finding; the others have no positives."""
    matrix = np.zeros((2, len(labels), 14))
    matrix[:, :, 0] = labels, scores
    return find(*matrix, **settings)[FINDINGS[0]]


def test_the_grid_is_the_reports():
    assert THRESHOLD_GRID.tolist() == [round(0.05 * step, 2) for step in range(2, 18)]
    assert THRESHOLD_GRID[[0, -1]].tolist() == [0.1, 0.85]


def test_youden_is_the_best_of_all_thresholds(make_scored):
    scored = make_scored(300)
    found = find_optimal_thresholds_by_roc(scored.labels, scored.scores)
    for index, finding in enumerate(FINDINGS):
        labels, scores = scored.labels[:, index], scored.scores[:, index]

        def gain(threshold: float, labels=labels, scores=scores) -> float:
            return (scores[labels] >= threshold).mean() - (scores[~labels] >= threshold).mean()

        assert gain(found[finding]) == pytest.approx(max(gain(score) for score in scores))


@pytest.mark.parametrize(("labels", "threshold"), [([0, 0, 0], 0.5), ([1, 1, 1], 0.5), ([0, 1, 1], 0.4)])
def test_youden_defaults_to_a_half(labels, threshold):
    assert of_one(find_optimal_thresholds_by_roc, labels, [0.3, 0.4, 0.9]) == threshold


def test_youden_takes_the_highest_of_equal_points():
    assert of_one(find_optimal_thresholds_by_roc, [1, 0, 1, 0], [0.9, 0.6, 0.4, 0.2]) == 0.9


@pytest.mark.parametrize("min_precision", [0.3, 0.4, 0.9])
def test_the_precision_constraint_is_a_plain_search(make_scored, min_precision):
    scored = make_scored(300)
    settings = {"min_precision": min_precision}
    constrained = find_optimal_thresholds_with_precision_constraint(scored.labels, scored.scores, **settings)
    adjusted = find_optimal_thresholds_with_dynamic_adjustment(scored.labels, scored.scores, **settings, min_f1=0.5)
    lowered = 0
    for index, finding in enumerate(FINDINGS):
        best, threshold = 0.0, 0.5
        for candidate in THRESHOLD_GRID:
            calls = scored.scores[:, index] >= candidate
            f1 = f1_score(scored.labels[:, index], calls, zero_division=0)
            if precision_score(scored.labels[:, index], calls, zero_division=0) >= min_precision and f1 > best:
                best, threshold = f1, candidate
        assert constrained[finding] == threshold
        assert adjusted[finding] == pytest.approx(threshold - 0.05 if best < 0.5 else threshold)
        lowered += best < 0.5
    assert lowered


def test_of_equal_f1_the_lowest_threshold():
    find = find_optimal_thresholds_with_precision_constraint
    assert of_one(find, [0, 1, 1], [0.05, 0.62, 0.7]) == 0.1
    assert of_one(find, [0, 1, 1], [0.33, 0.62, 0.7]) == 0.35
    assert of_one(find, [1, 0], [0.3, 0.4]) == 0.1  # a precision of a half, at the lowest


def test_a_score_at_the_threshold_is_a_call():
    assert of_one(find_optimal_thresholds_with_precision_constraint, [0, 1], [0.34, 0.35], grid=[0.35, 0.36]) == 0.35


def test_too_little_precision_gives_a_half_and_is_lowered():
    labels, scores = [1] + [0] * 9, [0.2] + [0.9] * 9
    assert of_one(find_optimal_thresholds_with_precision_constraint, labels, scores) == 0.5
    assert of_one(find_optimal_thresholds_with_dynamic_adjustment, labels, scores) == 0.45
    settings = {"adjustment": 0.2, "min_f1": 0.1}
    assert of_one(find_optimal_thresholds_with_dynamic_adjustment, labels, scores, **settings) == 0.3
    assert of_one(find_optimal_thresholds_with_dynamic_adjustment, labels, scores, adjustment=0.9) == 0.0


def test_at_a_sensitivity_the_highest_that_keeps_it():
    labels, scores = [1] * 10 + [0], [index / 10 for index in range(10)] + [0.5]
    assert of_one(find_thresholds_at_sensitivity, labels, scores) == 0.1
    assert of_one(find_thresholds_at_sensitivity, labels, scores, sensitivity=1.0) == 0.0
    assert of_one(find_thresholds_at_sensitivity, [0, 0], [0.1, 0.2]) == 0.5


def test_beside_each_threshold_stands_what_it_does(make_scored):
    scored = make_scored(300)
    points = find_operating_points(scored.labels, scored.scores)
    assert list(points) == ["youden", "precision_constraint", "dynamic_adjustment", "sensitivity_90"]
    table = describe_thresholds(scored.labels, scored.scores, points["sensitivity_90"])
    for index, finding in enumerate(FINDINGS):
        told, labels = table[finding], scored.labels[:, index]
        calls = scored.scores[:, index] >= points["sensitivity_90"][finding]
        assert 0.9 <= told["sensitivity"] == calls[labels].mean()
        assert told["specificity"] == (~calls[~labels]).mean() and told["precision"] == labels[calls].mean()
        counts = [told[f"{name}s"] for name in ("true_positive", "false_positive", "true_negative", "false_negative")]
        assert sum(counts) == 300 and told["true_positives"] == (labels & calls).sum()
        assert told["few_positives"] is False
    few = describe_thresholds(scored.labels[:20], scored.scores[:20], points["youden"])["Hernia"]
    assert few["few_positives"] is True


def test_thresholds_json_is_what_the_pipeline_reads(make_scored, tmp_path):
    scored = make_scored(300)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    content = fit_thresholds(
        scored.labels, scored.scores, dataset="nih", split="validation", weights=weights, min_precision=0.4
    )
    read = Thresholds(content)
    assert read.default == "dynamic_adjustment" and len(read.calibration) == 14
    settings = {"min_precision": 0.4}
    expected = find_optimal_thresholds_with_dynamic_adjustment(scored.labels, scored.scores, **settings)
    assert read.at(None) == expected
    assert read.fitted_on["positives"]["Mass"] == scored.labels[:, FINDINGS.index("Mass")].sum()
    assert read.fitted_on["weights_sha256"].startswith("9a129038")
    for split in ("test", "all"):
        with pytest.raises(ValueError, match=f"never fitted on the split {split}"):
            fit_thresholds(scored.labels, scored.scores, dataset="nih", split=split)


def test_an_f1_just_at_the_bound_is_not_weak():
    labels, scores = [0, 0, 1], [0.9, 0.9, 0.9]  # an F1 of a half, at any threshold
    assert of_one(find_optimal_thresholds_with_dynamic_adjustment, labels, scores, min_f1=0.5) == 0.1
    assert of_one(find_optimal_thresholds_with_dynamic_adjustment, labels, scores, min_f1=0.51) == 0.05
