"""Scores that know something, of patients with several images each."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.labels import label_matrix
from cxrfpn.evaluation.predictions import Scored


@pytest.fixture(scope="session")
def make_metadata() -> Callable[..., pd.DataFrame]:
    """Metadata of `count` images: 1 to 9 a patient, the last third of the patients in test, every finding frequent."""

    def make(count: int = 600, seed: int = 0, share: float = 0.2) -> pd.DataFrame:
        random = np.random.default_rng(seed)
        patients = np.repeat(np.arange(count), random.integers(1, 10, count))[:count]
        present = random.random((count, len(FINDINGS))) < share
        last = patients.max()
        return pd.DataFrame(
            {
                "image_id": [f"{patient:08}_{index:04}" for index, patient in enumerate(patients)],
                "patient_id": patients.astype(str),
                "age": random.integers(5, 90, last + 1)[patients].astype(float),
                "sex": np.array(["M", "F"])[random.integers(0, 2, last + 1)[patients]],
                "view_position": random.choice(["PA", "AP"], count),
                "findings": [tuple(np.array(FINDINGS)[row]) for row in present],
                "split": np.where(patients > 2 * last // 3, "test", "train"),
                "fold": (patients % 10).astype(float),
            }
        )

    return make


@pytest.fixture(scope="session")
def make_scored(make_metadata: Callable[..., pd.DataFrame]) -> Callable[..., Scored]:
    """Images with scores of a known worth: the sigmoid of noise plus `signal` where the finding is."""

    def make(count: int = 600, seed: int = 0, signal: float = 1.0, share: float = 0.2) -> Scored:
        metadata = make_metadata(count, seed, share)
        labels = label_matrix(metadata)
        noise = np.random.default_rng(seed + 1).normal(size=labels.shape)
        return Scored(metadata, labels, 1 / (1 + np.exp(1.5 - noise - signal * labels)))

    return make
