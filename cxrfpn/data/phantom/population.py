"""Who the phantoms are: ages, sexes, views and findings that go together as they do in NIH's data."""

from statistics import NormalDist

import numpy as np
import pandas as pd

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import METADATA_COLUMNS

# NIH's shares of images, in the order of FINDINGS; those under 3 % are raised to it, so that a few hundred phantoms
# hold a few of each.
PREVALENCE = np.maximum(
    [0.103, 0.025, 0.119, 0.177, 0.052, 0.056, 0.013, 0.047, 0.042, 0.021, 0.022, 0.015, 0.030, 0.002], 0.03
)
# Tetrachoric correlations of NIH's labels, those of 0.2 and more.
CORRELATIONS = {
    ("Atelectasis", "Effusion"): 0.37,
    ("Atelectasis", "Infiltration"): 0.21,
    ("Atelectasis", "Consolidation"): 0.31,
    ("Cardiomegaly", "Effusion"): 0.39,
    ("Effusion", "Infiltration"): 0.25,
    ("Effusion", "Mass"): 0.20,
    ("Effusion", "Consolidation"): 0.28,
    ("Effusion", "Edema"): 0.23,
    ("Effusion", "Pleural_Thickening"): 0.23,
    ("Infiltration", "Pneumonia"): 0.29,
    ("Infiltration", "Edema"): 0.31,
    ("Mass", "Nodule"): 0.30,
    ("Mass", "Consolidation"): 0.25,
    ("Mass", "Pleural_Thickening"): 0.24,
    ("Pneumonia", "Edema"): 0.56,
    ("Pneumothorax", "Emphysema"): 0.51,
    ("Pneumothorax", "Edema"): -0.20,
    ("Fibrosis", "Pleural_Thickening"): 0.26,
}
# How far an AP view and ten more years move the liability to a finding, in standard deviations, after NIH's shares.
AP_EFFECT = {
    "Atelectasis": 0.3, "Effusion": 0.3, "Infiltration": 0.4, "Consolidation": 0.6, "Pneumonia": 0.4, "Edema": 1.1,
    "Fibrosis": -0.5, "Pleural_Thickening": -0.2, "Hernia": -0.6, "Pneumothorax": -0.1, "Nodule": -0.1,
}  # fmt: skip
AGE_EFFECT = {
    "Hernia": 0.35, "Fibrosis": 0.15, "Atelectasis": 0.1, "Effusion": 0.1, "Emphysema": 0.1, "Pleural_Thickening": 0.1,
    "Mass": 0.05, "Nodule": 0.05,
}  # fmt: skip
IMAGES_A_PATIENT = 3.0
AP_SHARE, FEMALE_SHARE = 0.4, 0.435
MEAN_AGE, AGE_DEVIATION = 46.5, 16.7
TEST_SHARE = 0.2


def phantom_metadata(count: int, seed: int) -> pd.DataFrame:
    """METADATA_COLUMNS of the first `count` phantoms of a seed; phantom i is the same for every count."""
    patients = _random(seed, "images of a patient").geometric(1 / IMAGES_A_PATIENT, count)
    patient = np.searchsorted(np.cumsum(patients), np.arange(count), side="right")
    follow_up = np.arange(count) - (np.cumsum(patients) - patients)[patient]
    # Every list of draws is as long as there are images, the most patients there can be: a prefix of a longer one.
    draws = {name: _random(seed, name).random(count)[patient] for name in ("age", "sex", "illness", "split", "fold")}
    age = np.clip(np.round(_age(draws["age"]) + 0.4 * follow_up), 1, 95)
    ap = _random(seed, "view").random(count) < AP_SHARE + 0.6 * (draws["illness"] - 0.5)
    findings = _findings(_liability(count, seed, patient), age, ap)
    test = draws["split"] < TEST_SHARE
    table = {
        "image_id": [f"phantom-{seed}-{number:07}" for number in range(count)],
        "patient_id": [f"phantom-patient-{seed}-{number:07}" for number in patient],
        "age": age,
        "sex": np.where(draws["sex"] < FEMALE_SHARE, "F", "M"),
        "view_position": np.where(ap, "AP", "PA"),
        "findings": findings,
        "split": np.where(test, "test", "train"),
        "fold": pd.array(np.where(test, None, (10 * draws["fold"]).astype(int)), dtype="Int64"),
    }
    return pd.DataFrame(table)[list(METADATA_COLUMNS)]


def _random(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, *purpose.encode()])


def _age(draw: np.ndarray) -> np.ndarray:
    """Even draws of 0..1 -> years, by NIH's percentiles."""
    return np.interp(draw, [0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1], [1, 8, 18, 34, 49, 59, 72, 79, 95])


def _liability(count: int, seed: int, patient: np.ndarray) -> np.ndarray:
    """Return normal draws [count,14] correlated between findings, and half the same for all images of a patient."""
    correlation = np.eye(len(FINDINGS))
    for (first, second), value in CORRELATIONS.items():
        places = FINDINGS.index(first), FINDINGS.index(second)
        correlation[places] = correlation[places[::-1]] = value
    own = _random(seed, "findings of an image").standard_normal((count, len(FINDINGS)))
    shared = _random(seed, "findings of a patient").standard_normal((count, len(FINDINGS)))[patient]
    return np.sqrt(0.5) * (own + shared) @ np.linalg.cholesky(correlation).T


def _findings(liability: np.ndarray, age: np.ndarray, ap: np.ndarray) -> list[tuple[str, ...]]:
    by_view = np.array([AP_EFFECT.get(finding, 0.0) for finding in FINDINGS])
    by_age = np.array([AGE_EFFECT.get(finding, 0.0) for finding in FINDINGS])
    shifted = liability + by_view * (ap - AP_SHARE)[:, None] + by_age * ((age - MEAN_AGE) / 10)[:, None]
    # The effects widen the liability; the threshold follows, so that PREVALENCE stays above it.
    spread = np.sqrt(1 + by_view**2 * AP_SHARE * (1 - AP_SHARE) + by_age**2 * (AGE_DEVIATION / 10) ** 2)
    threshold = spread * [NormalDist().inv_cdf(1 - share) for share in PREVALENCE]
    return [tuple(FINDINGS[place] for place in np.flatnonzero(row)) for row in shifted > threshold]
