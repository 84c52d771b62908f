"""Each rule of the report against a plain loop over it, and its edges: ties, defaults, the adjustment."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.fitting import choose_default, fit_thresholds
from cxrfpn.evaluation.thresholds import (
    THRESHOLD_GRID,
    describe_thresholds,
    find_operating_points,
    find_optimal_thresholds_by_roc,
    find_optimal_thresholds_with_dynamic_adjustment,
    find_optimal_thresholds_with_precision_constraint,
    find_thresholds_at_sensitivity,
    mark_thresholds,
)
from thresholds_cxrfpn import Thresholds


def close(value: float) -> object:
    """What lies just below a score counts as the score."""
    return pytest.approx(value, rel=1e-5)


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


@pytest.mark.parametrize(("labels", "threshold"), [([0, 0, 0], 0.9), ([1, 1, 1], 0.3), ([0, 1, 1], 0.4)])
def test_youden_without_positives_calls_the_highest_score_and_without_negatives_all(labels, threshold):
    assert of_one(find_optimal_thresholds_by_roc, labels, [0.3, 0.4, 0.9]) == close(threshold)


def test_youden_takes_the_highest_of_equal_points():
    assert of_one(find_optimal_thresholds_by_roc, [1, 0, 1, 0], [0.9, 0.6, 0.4, 0.2]) == close(0.9)


@pytest.mark.parametrize("min_precision", [0.3, 0.4, 0.9])
def test_the_precision_constraint_is_a_plain_search(make_scored, min_precision):
    scored = make_scored(300)
    settings = {"min_precision": min_precision}
    constrained = find_optimal_thresholds_with_precision_constraint(scored.labels, scored.scores, **settings)
    adjusted = find_optimal_thresholds_with_dynamic_adjustment(scored.labels, scored.scores, **settings, min_f1=0.5)
    lowered = 0
    for index, finding in enumerate(FINDINGS):
        labels, scores = scored.labels[:, index], scored.scores[:, index]
        best, threshold, most = 0.0, None, 0.0
        for candidate in THRESHOLD_GRID:
            f1 = f1_score(labels, scores >= candidate, zero_division=0)
            if precision_score(labels, scores >= candidate, zero_division=0) >= min_precision and f1 > best:
                best, threshold = f1, candidate
        if threshold is None:  # out of reach: as good as the best of all scores
            most = max(f1_score(labels, scores >= score) for score in scores)
            assert f1_score(labels, scores >= constrained[finding]) == pytest.approx(most)
            assert adjusted[finding] == constrained[finding]
            continue
        assert constrained[finding] == threshold
        assert adjusted[finding] == pytest.approx(threshold - 0.05 if best < 0.5 else threshold)
        lowered += best < 0.5
    assert lowered or min_precision == 0.9


def test_of_equal_f1_the_lowest_threshold():
    find = find_optimal_thresholds_with_precision_constraint
    assert of_one(find, [0, 1, 1], [0.05, 0.62, 0.7]) == 0.1
    assert of_one(find, [0, 1, 1], [0.33, 0.62, 0.7]) == 0.35
    assert of_one(find, [1, 0], [0.3, 0.4]) == 0.1  # a precision of a half, at the lowest


def test_a_score_at_the_threshold_is_a_call():
    assert of_one(find_optimal_thresholds_with_precision_constraint, [0, 1], [0.34, 0.35], grid=[0.35, 0.36]) == 0.35


@pytest.mark.parametrize(
    "find", [find_optimal_thresholds_with_precision_constraint, find_optimal_thresholds_with_dynamic_adjustment]
)
def test_where_no_precision_is_enough_the_best_f1_is_taken_and_marked(find):
    labels, scores = (
        [1] + [0] * 9,
        [0.02] + [0.01] * 4 + [0.06] * 5,
    )  # under the grid, and a precision of 1 in 6 at most
    assert of_one(find, labels, scores) == close(0.02)
    matrix = np.zeros((2, 10, 14))
    matrix[:, :, 0] = labels, scores
    marks = mark_thresholds(*matrix)
    assert marks["precision_constraint"][FINDINGS[0]].startswith("no threshold has the minimum precision")
    assert FINDINGS[0] not in marks["youden"] and marks["youden"][FINDINGS[1]].startswith("no positives to fit on")
    assert mark_thresholds(*matrix, min_precision=0.1)["precision_constraint"].get(FINDINGS[0])  # not on the grid


def test_no_finding_is_left_with_a_threshold_that_calls_nothing(make_scored):
    """Weak scores of rare findings, one of them without a positive: every operating point calls somebody."""
    scored = make_scored(300, signal=0.2, share=0.02)
    scored.labels[:, FINDINGS.index("Hernia")] = False
    scores = scored.scores * 0.1
    points = find_operating_points(scored.labels, scores, min_precision=0.6)
    for point, thresholds in points.items():
        called = (scores >= np.array([thresholds[finding] for finding in FINDINGS])).sum(axis=0)
        assert called.min() > 0, point
        assert called[FINDINGS.index("Hernia")] == 3  # the highest 1 % of the scores
    marks = mark_thresholds(scored.labels, scores, min_precision=0.6)
    assert set(marks) == set(points) and set(marks["youden"]) == {"Hernia"} < set(marks["dynamic_adjustment"])


def test_at_a_sensitivity_the_highest_that_keeps_it():
    labels, scores = [1] * 10 + [0], [index / 10 for index in range(10)] + [0.5]
    assert of_one(find_thresholds_at_sensitivity, labels, scores) == close(0.1)
    assert of_one(find_thresholds_at_sensitivity, labels, scores, sensitivity=1.0) == 0.0
    assert of_one(find_thresholds_at_sensitivity, [0, 0], [0.1, 0.2]) == close(0.2)


def test_a_threshold_keeps_its_sensitivity_for_the_same_scores_in_double_precision():
    """Training fits on single precision, and the pipeline computes the sigmoid in double precision."""
    random = np.random.default_rng(0)
    for _ in range(50):
        labels = random.random((200, 14)) < 0.2
        logits = (random.normal(size=labels.shape) + labels).astype(np.float32)
        single = 1 / (1 + np.exp(-logits))
        double = 1 / (1 + np.exp(-logits.astype(np.float64)))
        thresholds = find_thresholds_at_sensitivity(labels, single.astype(np.float32))
        calls = double >= np.array([thresholds[finding] for finding in FINDINGS])
        assert ((calls & labels).sum(axis=0) >= 0.9 * labels.sum(axis=0)).all()


def test_unknown_labels_are_left_out(make_scored):
    scored = make_scored(300)
    labels = scored.labels.astype(float)
    labels[:100] = np.nan
    assert find_operating_points(labels, scored.scores) == find_operating_points(
        scored.labels[100:], scored.scores[100:]
    )


def test_beside_each_threshold_stands_what_it_does(make_scored):
    scored = make_scored(300)
    points = find_operating_points(scored.labels, scored.scores)
    assert list(points) == ["youden", "precision_constraint", "dynamic_adjustment", "sensitivity_90"]
    table = describe_thresholds(scored.labels, scored.scores, points["sensitivity_90"])
    for index, finding in enumerate(FINDINGS):
        row, labels = table[finding], scored.labels[:, index]
        calls = scored.scores[:, index] >= points["sensitivity_90"][finding]
        assert 0.9 <= row["sensitivity"] == calls[labels].mean()
        assert row["specificity"] == (~calls[~labels]).mean() and row["precision"] == labels[calls].mean()
        counts = [row[f"{name}s"] for name in ("true_positive", "false_positive", "true_negative", "false_negative")]
        assert sum(counts) == 300 and row["true_positives"] == (labels & calls).sum()
        assert row["few_positives"] is False
    few = describe_thresholds(scored.labels[:20], scored.scores[:20], points["youden"])["Hernia"]
    assert few["few_positives"] is True


def test_thresholds_json_is_what_the_pipeline_reads_and_says_how_it_was_fitted(make_scored):
    scored = make_scored(300)
    rows = scored.metadata.assign(split="train")
    settings = {"dataset": "nih", "split": "validation", "pixels": {"size": 128, "prepared_size": 160}}
    content = fit_thresholds(scored.labels, scored.scores, rows, weights_digest="9a12", min_precision=0.4, **settings)
    read = Thresholds(content)
    assert len(read.calibration) == 14
    assert read.operating_points == find_operating_points(scored.labels, scored.scores, min_precision=0.4)
    mass, fitted = FINDINGS.index("Mass"), read.fitted_on
    assert fitted["positives"]["Mass"] == scored.labels[:, mass].sum()
    assert fitted["positive_patients"]["Mass"] == rows["patient_id"][scored.labels[:, mass]].nunique()
    assert fitted["patients"] == rows["patient_id"].nunique() and fitted["images"] == 300
    assert fitted["minimum_precision"] == 0.4 and fitted["pixels"] == {"size": 128, "prepared_size": 160}
    assert fitted["weights_digest"] == "9a12"
    for split in ("test", "all"):
        with pytest.raises(ValueError, match=f"never fitted on the split {split}"):
            fit_thresholds(scored.labels, scored.scores, rows, dataset="nih", split=split)


def test_images_of_a_test_list_are_refused_under_any_name_of_the_split(make_scored):
    scored = make_scored(100)
    rows = scored.metadata.assign(split=["train"] * 97 + ["test"] * 3)
    with pytest.raises(
        ValueError, match=f"3 of 100 are on the source's own test list, {rows['image_id'][97]} the first"
    ):
        fit_thresholds(scored.labels, scored.scores, rows, dataset="nih", split="validation")


def test_the_default_is_the_operating_point_that_is_best_on_other_patients(make_scored):
    """Against a plain loop over the folds; scores that name the patient must not help."""
    scored = make_scored(400, share=0.1)
    patients = scored.metadata["patient_id"].to_numpy(str)
    name, record = choose_default(scored.labels, scored.scores, patients, min_precision=0.3)
    assert name == max(record["macro_f1"], key=record["macro_f1"].get)
    assert "cross-validated in 5 folds of patients" in record["rule"]
    ids = np.unique(patients)
    fold_of = dict(zip(ids, np.random.default_rng(0).permutation(len(ids)) % 5, strict=True))
    fold = np.array([fold_of[patient] for patient in patients])
    calls = np.zeros_like(scored.labels)
    for number in range(5):
        mine = fold == number
        points = find_operating_points(scored.labels[~mine], scored.scores[~mine])
        calls[mine] = scored.scores[mine] >= np.array([points["youden"][finding] for finding in FINDINGS])
    assert record["macro_f1"]["youden"] == pytest.approx(f1_score(scored.labels, calls, average="macro"))


def test_an_f1_just_at_the_bound_is_not_weak():
    labels, scores = [0, 0, 1], [0.9, 0.9, 0.9]  # an F1 of a half, at any threshold
    assert of_one(find_optimal_thresholds_with_dynamic_adjustment, labels, scores, min_f1=0.5) == 0.1
    assert of_one(find_optimal_thresholds_with_dynamic_adjustment, labels, scores, min_f1=0.51) == 0.05
