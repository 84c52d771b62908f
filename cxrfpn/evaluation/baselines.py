"""Measure the baselines that a model must beat: age, view and sex alone, and chance."""

from collections.abc import Sequence

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
from cxrfpn.data.labels import truth_matrix
from cxrfpn.evaluation.figures import BaselineFigures
from cxrfpn.evaluation.folds import FOLDS, deal_patients
from cxrfpn.evaluation.metrics import auroc_by_finding, mean_auroc
from patient_cxrfpn import Patient

SHUFFLES = 20
PIXEL_COMPONENTS = 150


def patient_scores(
    train: pd.DataFrame, test: pd.DataFrame, seed: int = 0, findings: Sequence[str] = FINDINGS
) -> NDArray[np.float64]:
    """Score the test images [N,F] by age, view position and sex alone: gradient boosting fitted on `train`.

    Args:
        train, test: metadata with METADATA_COLUMNS. A finding that `train` lacks is scored by its share there.
    """
    # Three coarse inputs: small trees and a slow rate keep rare findings from being overfitted.
    boosting = HistGradientBoostingClassifier(
        learning_rate=0.05, max_leaf_nodes=6, max_iter=100, min_samples_leaf=50, early_stopping=False,
        random_state=seed,
    )  # fmt: skip
    return _fit_each(boosting, _patient_vectors(train), truth_matrix(train, findings), _patient_vectors(test))


def pixel_scores(
    train: pd.DataFrame, train_pixels: NDArray, test: pd.DataFrame, test_pixels: NDArray
) -> NDArray[np.float64]:
    """Score images [N,F] by the principal components of small pictures and the patient: logistic regression.

    Args:
        train, test: metadata, as in `patient_scores`.
        train_pixels, test_pixels: [N,P] grey levels, a row an image of theirs.
    """
    reduce = PCA(min(PIXEL_COMPONENTS, *train_pixels.shape), random_state=0).fit(train_pixels)
    train_inputs, test_inputs = (
        np.hstack([reduce.transform(pixels), _patient_vectors(metadata)])
        for pixels, metadata in ((train_pixels, train), (test_pixels, test))
    )
    regression = make_pipeline(
        SimpleImputer(add_indicator=True), StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)
    )
    return _fit_each(regression, train_inputs, truth_matrix(train), test_inputs)


def cross_fitted_patient_scores(
    metadata: pd.DataFrame, seed: int = 0, findings: Sequence[str] = FINDINGS
) -> NDArray[np.float64]:
    """Return `patient_scores` [N,F] of images, those of each fold of patients by a fit on the other folds."""
    fold, _ = deal_patients(metadata["patient_id"].to_numpy(str), seed)
    scores = np.zeros((len(metadata), len(findings)))
    for held_out in (fold == number for number in np.unique(fold)):
        scores[held_out] = patient_scores(metadata[~held_out], metadata[held_out], seed, findings)
    return scores


def measure_baselines(
    labels: NDArray,
    scores: NDArray,
    train: pd.DataFrame | None,
    test: pd.DataFrame,
    seed: int = 0,
    findings: Sequence[str] = FINDINGS,
) -> BaselineFigures:
    """Measure the AUROC by the patient alone, and of the model's own scores against shuffled labels.

    Args:
        train: metadata to fit the first on, of none of the images of `test`, and empty to leave it out; None cross-fits
            it on `test`, over patients.
    """
    baselines: BaselineFigures = {"shuffled_labels": _shuffled(labels, scores, seed, findings)}
    if not len(test if train is None else train) or (train is None and test["patient_id"].nunique() < FOLDS):
        return baselines
    by_patient = (
        cross_fitted_patient_scores(test, seed, findings)
        if train is None
        else patient_scores(train, test, seed, findings)
    )
    baselines["patient_only"] = {
        "mean_auroc": mean_auroc(labels, by_patient, findings),
        "findings": auroc_by_finding(labels, by_patient, findings),
        "fitted_on": len(test) if train is None else len(train),
        "folds": FOLDS if train is None else None,
    }
    return baselines


def _fit_each(
    classifier: BaseEstimator, train_inputs: NDArray, labels: NDArray[np.float64], test_inputs: NDArray
) -> NDArray[np.float64]:
    """Score the test inputs [N,F] by a classifier fitted for each finding, or by the finding's share."""
    scores = np.zeros((len(test_inputs), labels.shape[1]))
    for index, column in enumerate(labels.T):
        known = ~np.isnan(column)
        present, inputs = column[known] == 1, train_inputs[known]
        usable = ~np.isnan(inputs).all(axis=0)  # an input that no patient has teaches nothing, and trees refuse it
        if 0 < present.sum() < len(present) and usable.any():
            fitted = clone(classifier).fit(inputs[:, usable], present)
            scores[:, index] = fitted.predict_proba(test_inputs[:, usable])[:, 1]
        elif len(present):
            scores[:, index] = present.mean()
    return scores


def _patient_vectors(metadata: pd.DataFrame) -> NDArray[np.float64]:
    columns = (metadata[name] for name in ("age", "sex", "view_position"))
    return np.array([Patient(age, sex, view).encode() for age, sex, view in zip(*columns, strict=True)])


def _shuffled(labels: NDArray, scores: NDArray, seed: int, findings: Sequence[str]) -> dict[str, float]:
    random = np.random.default_rng(seed)
    areas = [mean_auroc(random.permutation(labels), scores, findings) for _ in range(SHUFFLES)]
    return {"mean_auroc": float(np.mean(areas)), "highest_mean_auroc": float(np.max(areas)), "shuffles": SHUFFLES}
