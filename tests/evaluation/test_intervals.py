"""The bootstrap against scikit-learn on every resample, and its intervals against what they promise."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxrfpn.evaluation.intervals import Bootstrap, interval, mean_over_findings


@pytest.fixture(scope="module")
def clustered() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels [N,3], scores [N,3] with many ties and patients [N]; the last finding is one patient's."""
    random = np.random.default_rng(3)
    patients = np.repeat(np.arange(120), random.integers(1, 9, 120))
    labels = random.random((len(patients), 3)) < [0.4, 0.1, 0]
    labels[0, 2] = True
    return labels, np.round(random.random(labels.shape) + 0.3 * labels, 1), patients


def test_every_resample_is_scikit_learns_auroc(clustered):
    labels, scores, patients = clustered
    bootstrap = Bootstrap.draw(patients, 50)
    areas = bootstrap.auroc(labels, scores)
    undefined = 0
    for resample, counts in enumerate(bootstrap.counts):
        assert counts.sum() == 120
        weights = counts[patients]
        rows = np.repeat(np.arange(len(patients)), weights)
        for finding in range(3):
            mine = labels[rows, finding]
            if mine.all() or not mine.any():
                undefined += 1
                assert np.isnan(areas[resample, finding])
                continue
            assert areas[resample, finding] == pytest.approx(roc_auc_score(mine, scores[rows, finding]), abs=1e-12)
            weighted = roc_auc_score(labels[:, finding], scores[:, finding], sample_weight=weights)
            assert areas[resample, finding] == pytest.approx(weighted, abs=1e-12)
    assert undefined  # the rare finding was lost in some resample, and that was noticed


def test_patients_make_wider_intervals_than_images():
    """Ten images a patient, all alike: image by image the interval is far too narrow."""
    random = np.random.default_rng(0)
    labels = np.repeat(random.random(60) < 0.5, 10)[:, None]
    scores = np.repeat(random.random(60), 10)[:, None] + 0.3 * labels
    patients = np.repeat(np.arange(60), 10)
    width = [np.ptp(interval(Bootstrap.draw(ids, 500).auroc(labels, scores))) for ids in (patients, np.arange(600))]
    assert width[0] > 2 * width[1]


def test_an_interval_holds_the_truth_about_19_times_of_20():
    """Normal scores with a shift of 1 have an AUROC of 0.7602."""
    random, held = np.random.default_rng(7), 0
    for repeat in range(200):
        labels = random.random((150, 1)) < 0.4
        scores = random.normal(size=labels.shape) + labels
        low, high = interval(Bootstrap.draw(np.arange(150), 200, seed=repeat).auroc(labels, scores))
        held += low <= 0.76025 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_a_paired_difference_is_narrower_than_two_intervals(clustered):
    labels, scores, patients = clustered
    bootstrap = Bootstrap.draw(patients, 300)
    slightly_worse = scores - 0.05 * labels
    one, other = bootstrap.auroc(labels[:, :1], scores[:, :1]), bootstrap.auroc(labels[:, :1], slightly_worse[:, :1])
    low, high = interval(one - other)
    assert 0 < low < high < 0.5 * np.ptp(interval(one))


def test_ratios_and_parts_use_the_same_resamples(clustered):
    labels, scores, patients = clustered
    bootstrap = Bootstrap.draw(patients, 20)
    calls = scores >= 0.6
    sensitivity = bootstrap.ratio(labels & calls, labels)
    chosen = patients % 2 == 0
    part = bootstrap.of(chosen).auroc(labels[chosen, :1], scores[chosen, :1])
    for resample, counts in enumerate(bootstrap.counts):
        rows = np.repeat(np.arange(len(patients)), counts[patients])
        with np.errstate(invalid="ignore"):
            expected = (labels & calls)[rows].sum(axis=0) / labels[rows].sum(axis=0)
        np.testing.assert_allclose(sensitivity[resample], expected)
        rows = rows[chosen[rows]]
        assert part[resample, 0] == pytest.approx(roc_auc_score(labels[rows, 0], scores[rows, 0]), abs=1e-12)


def test_what_is_undefined_is_left_out():
    samples = np.array([[0.5, np.nan], [0.7, 0.9], [np.nan, np.nan]])
    np.testing.assert_allclose(mean_over_findings(samples), [0.5, 0.8, np.nan])
    assert interval([np.nan, np.nan]) is None
    assert interval([0.2, np.nan, 0.2]) == (0.2, 0.2)


def test_an_interval_leaves_out_as_much_on_either_side():
    assert interval(np.arange(1001)) == pytest.approx((25, 975))
    assert interval(np.arange(1001), level=0.8) == pytest.approx((100, 900))
