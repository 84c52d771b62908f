"""Bootstrap intervals against scikit-learn on every resample, on labels like those of NIH's test set."""

import time

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.ratio import Row
from cxrfpn.evaluation.intervals import Bootstrap

IMAGES, PATIENTS, RESAMPLES = 25_596, 2_797, 1_000
# Positives on the official test list, in the order of FINDINGS.
POSITIVES = np.array([3279, 1069, 4658, 6112, 1748, 1623, 555, 2665, 1815, 925, 1093, 435, 1143, 86])
# Scikit-learn takes as long for each resample as for the next: these many are timed.
TIMED_RESAMPLES = 10


def measure() -> list[Row]:
    """Our time for every AUROC of 1,000 resamples over scikit-learn's."""
    random = np.random.default_rng(0)
    patients = np.sort(random.integers(PATIENTS, size=IMAGES))
    labels = random.random((IMAGES, len(POSITIVES))) < POSITIVES / IMAGES
    scores = random.random(labels.shape) + 0.3 * labels
    start = time.perf_counter()
    bootstrap = Bootstrap.draw(patients, RESAMPLES)
    areas = bootstrap.auroc(labels, scores)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    for counts, ours_here in zip(bootstrap.counts[:TIMED_RESAMPLES], areas, strict=False):
        rows = np.repeat(np.arange(IMAGES), counts[patients])
        theirs_here = [roc_auc_score(labels[rows, index], scores[rows, index]) for index in range(len(POSITIVES))]
        assert np.abs(ours_here - theirs_here).max() < 1e-12
    theirs = (time.perf_counter() - start) * RESAMPLES / TIMED_RESAMPLES
    what = f"intervals of 14 AUROCs on {IMAGES:,} images, {RESAMPLES:,} resamples / scikit-learn on every resample"
    return [Row(what, ours / theirs, 1 / 20, f"({ours:.2f} s / {theirs:.0f} s)")]
