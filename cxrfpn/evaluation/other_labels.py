"""Scores against the labels of another table: radiologists' instead of mined ones, or another set's own."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.label_tables import LabelTable
from cxrfpn.data.label_tables.table import any_of
from cxrfpn.data.labels import truth_matrix
from cxrfpn.data.schema import SourceError
from cxrfpn.evaluation.figures import Estimate, LabelFigures, OtherLabelsFigures
from cxrfpn.evaluation.intervals import Bootstrap, interval
from cxrfpn.evaluation.predictions import Scored


def measure_by_table(
    scored: Scored, probabilities: NDArray[np.float64] | None, table: LabelTable, bootstrap: Bootstrap
) -> OtherLabelsFigures:
    """Measure the AUROC by a table's labels, beside that by the images' own, on the images that both have.

    A label of the table that stands for any of several findings is scored by the probability that any of them is there,
    as if they were independent; where findings have no calibrated probability, their scores take its place.

    Args:
        scored: labels and scores of N images.
        probabilities: [N,F] calibrated, or None.
        table: labels of some of these images.
        bootstrap: resamples of the N images' patients.

    Returns:
        {"table", "images", "patients", "notes", "labels": {label: {"members", "positives", "negatives",
        "positive_patients", "auroc", "auroc_ci", "auroc_own", "auroc_own_ci"}}}, both AUROCs on the same images, None
        where undefined.

    Raises:
        SourceError: the table has none of the images.
    """
    places = pd.Series(np.arange(len(table.metadata)), index=table.metadata["image_id"])
    row_of = scored.metadata["image_id"].map(places)
    common = row_of.notna().to_numpy()
    if not common.any():
        raise SourceError(
            f"{table.file}: has none of the images that were scored ({scored.metadata['image_id'].iloc[0]}, ...); "
            f"it has {table.metadata['image_id'].iloc[0]}, ..."
        )
    rows = row_of[common].astype(int).to_numpy()
    theirs, own = truth_matrix(table.metadata.iloc[rows]), scored.truth[common]
    chances = _chances(scored.scores, probabilities)[common]
    patients, resamples = scored.metadata["patient_id"][common], bootstrap.of(common)
    labels: dict[str, LabelFigures] = {}
    truths: dict[str, tuple[NDArray, tuple[str, ...]]] = {
        finding: (theirs[:, FINDINGS.index(finding)], (finding,)) for finding in table.labelled
    }
    truths |= {name: (table.groups[name].to_numpy()[rows], members) for name, members in table.members.items()}
    for name, (truth, members) in truths.items():
        # A model of other findings is measured by what it shares with the table.
        if set(members) <= set(scored.findings):
            index = [scored.findings.index(member) for member in members]
            labels[name] = _measure(truth, own[:, index], chances[:, index], patients, resamples)
            labels[name]["members"] = list(members) if len(members) > 1 else []
    return {
        "table": f"{table.kind}:{table.file.name}",
        "images": int(common.sum()),
        "patients": int(patients.nunique()),
        "notes": list(table.notes),
        "labels": labels,
    }


def _measure(
    truth: NDArray[np.float64],
    own: NDArray[np.float64],
    chances: NDArray[np.float64],
    patients: pd.Series,
    bootstrap: Bootstrap,
) -> LabelFigures:
    """One label [K] against members' own labels and chances [K,M], on the images in which both are known."""
    own = any_of(own)
    # An AUROC by one finding is that of its scores; the complement of a product of one is the same order.
    chance = 1 - np.prod(1 - chances, axis=1) if chances.shape[1] > 1 else chances[:, 0]
    positive, negative = truth == 1, truth == 0
    own = np.where(positive | negative, own, np.nan)
    theirs, ours = (_auroc(labels, chance, patients, bootstrap) for labels in (truth, own))
    return {
        "members": [],
        "positives": int(positive.sum()),
        "negatives": int(negative.sum()),
        "positive_patients": int(patients[positive].nunique()),
        "auroc": theirs.value,
        "auroc_ci": theirs.bounds,
        "auroc_own": ours.value,
        "auroc_own_ci": ours.bounds,
    }


def _auroc(
    truth: NDArray[np.float64], chance: NDArray[np.float64], patients: pd.Series, bootstrap: Bootstrap
) -> Estimate:
    value = bootstrap.once().auroc(truth[:, None], chance[:, None])[0, 0]
    if np.isnan(value):
        return Estimate(None, None)
    behind = min(patients[truth == state].nunique() for state in (0, 1))
    samples = bootstrap.auroc(truth[:, None], chance[:, None])[:, 0]
    return Estimate(float(value), interval(samples, behind))


def _chances(scores: NDArray[np.float64], probabilities: NDArray[np.float64] | None) -> NDArray[np.float64]:
    return scores if probabilities is None else np.where(np.isnan(probabilities), scores, probabilities)
