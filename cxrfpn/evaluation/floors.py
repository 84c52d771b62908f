"""What a model must beat: what age, view and sex alone give away, and what chance gives."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.labels import label_matrix
from cxrfpn.evaluation.metrics import auroc_by_finding, mean_auroc
from patient_cxrfpn import Patient

SHUFFLES = 20
PIXEL_COMPONENTS = 150


def patient_scores(train: pd.DataFrame, test: pd.DataFrame, seed: int = 0) -> NDArray[np.float64]:
    """Scores [N,14] of the test images by age, view position and sex alone: gradient boosting fitted on `train`.

    Args:
        train, test: metadata with METADATA_COLUMNS. A finding that `train` lacks is scored by its share there.
    """
    # Three coarse inputs: small trees and a slow rate keep rare findings from being learnt by heart.
    boosting = HistGradientBoostingClassifier(
        learning_rate=0.05, max_leaf_nodes=6, max_iter=100, min_samples_leaf=50, early_stopping=False,
        random_state=seed,
    )  # fmt: skip
    return _fit_each(boosting, _patient_vectors(train), label_matrix(train), _patient_vectors(test))


def pixel_scores(
    train: pd.DataFrame, train_pixels: NDArray, test: pd.DataFrame, test_pixels: NDArray
) -> NDArray[np.float64]:
    """Scores [N,14] by the principal components of small pictures and the patient: logistic regression.

    Args:
        train, test: metadata, as in `patient_scores`.
        train_pixels, test_pixels: [N,P] grey levels, a row an image of theirs.
    """
    reduce = PCA(min(PIXEL_COMPONENTS, *train_pixels.shape), random_state=0).fit(train_pixels)
    told, asked = (
        np.hstack([reduce.transform(pixels), _patient_vectors(metadata)])
        for pixels, metadata in ((train_pixels, train), (test_pixels, test))
    )
    regression = make_pipeline(
        SimpleImputer(add_indicator=True), StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)
    )
    return _fit_each(regression, told, label_matrix(train), asked)


def measure_floors(
    labels: NDArray, scores: NDArray, train: pd.DataFrame, test: pd.DataFrame, seed: int = 0
) -> dict[str, Any]:
    """The AUROC by the patient alone, and of the model's own scores against shuffled labels (mean and highest)."""
    floors: dict[str, Any] = {"shuffled_labels": _shuffled(labels, scores, seed)}
    if len(train):
        by_patient = patient_scores(train, test, seed)
        floors["patient_only"] = {
            "mean_auroc": mean_auroc(labels, by_patient),
            "findings": auroc_by_finding(labels, by_patient),
            "fitted_on": len(train),
        }
    return floors


def _fit_each(
    classifier: BaseEstimator, told: NDArray, labels: NDArray[np.bool_], asked: NDArray
) -> NDArray[np.float64]:
    """Scores [N,14] of `asked` by a classifier fitted anew for each finding; where none can be, the finding's share."""
    scores = np.tile(labels.mean(axis=0), (len(asked), 1))
    for index in range(len(FINDINGS)):
        if 0 < labels[:, index].sum() < len(labels):
            scores[:, index] = clone(classifier).fit(told, labels[:, index]).predict_proba(asked)[:, 1]
    return scores


def _patient_vectors(metadata: pd.DataFrame) -> NDArray[np.float64]:
    columns = (metadata[name] for name in ("age", "sex", "view_position"))
    return np.array([Patient(age, sex, view).encode() for age, sex, view in zip(*columns, strict=True)])


def _shuffled(labels: NDArray, scores: NDArray, seed: int) -> dict[str, float]:
    random = np.random.default_rng(seed)
    areas = [mean_auroc(random.permutation(labels), scores) for _ in range(SHUFFLES)]
    return {"mean_auroc": float(np.mean(areas)), "highest_mean_auroc": float(np.max(areas)), "shuffles": SHUFFLES}
