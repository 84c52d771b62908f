"""Findings as names, as a matrix, and counted."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import UNKNOWN_COLUMN, SourceError

NO_FINDING = "No Finding"
LABELS = (*FINDINGS, NO_FINDING)


def label_matrix(metadata: pd.DataFrame, findings: Sequence[str] = FINDINGS) -> np.ndarray:
    """Return which of the findings N images have, [N,F] bool in the order of `findings`; unknown ones are not had.

    Raises:
        SourceError: an image has a finding that is none of them.
    """
    # A set of findings is looked at once: 112,120 images have 836 of them.
    which, sets = pd.factorize(metadata["findings"])
    matrix = np.array([[finding in names for finding in findings] for names in sets], bool).reshape(-1, len(findings))
    for place, names in enumerate(sets):
        if unknown := [name for name in names if name not in findings]:
            image_id = metadata["image_id"].iloc[np.argmax(which == place)]
            known = "the 14 of NIH" if tuple(findings) == FINDINGS else ", ".join(findings)
            raise SourceError(f"image {image_id} has the unknown finding {', '.join(unknown)}; known are {known}")
    return matrix[which]


def known_matrix(metadata: pd.DataFrame, findings: Sequence[str] = FINDINGS) -> np.ndarray:
    """Return whether each finding of N images is known, [N,F] bool; without UNKNOWN_COLUMN all are."""
    if UNKNOWN_COLUMN not in metadata:
        return np.ones((len(metadata), len(findings)), bool)
    # Rows of a file that knows all have none, where other files of the source lack some.
    lacking = metadata[UNKNOWN_COLUMN].map(lambda names: names if isinstance(names, tuple) else ())
    which, sets = pd.factorize(lacking)
    known = np.array([[finding not in names for finding in findings] for names in sets], bool)
    return known.reshape(-1, len(findings))[which]


def truth_matrix(metadata: pd.DataFrame, findings: Sequence[str] = FINDINGS) -> np.ndarray:
    """Return the findings of N images as [N,F] of 0, 1 and NaN for unknown.

    Raises:
        SourceError: as `label_matrix`.
    """
    return np.where(known_matrix(metadata, findings), label_matrix(metadata, findings), np.nan)


def is_only(labels: np.ndarray, label: str) -> np.ndarray:
    """Which of N images [N,14] have this label and no other -> [N] bool; "No Finding" is a label here.

    Raises:
        ValueError: for another label.
    """
    if label == NO_FINDING:
        return ~labels.any(axis=1)
    if label not in FINDINGS:
        raise ValueError(f"{label!r} is no label; known are {', '.join(LABELS)}")
    return labels[:, FINDINGS.index(label)] & (labels.sum(axis=1) == 1)


def count_labels(metadata: pd.DataFrame, plan: pd.DataFrame | None = None) -> pd.Series:
    """How many images carry each of the 14 findings, and how many none.

    Args:
        plan: counts what an epoch of this plan shows, copies and mirror images included, instead of every row once.
    """
    labels, shown = label_matrix(metadata), np.ones(len(metadata), np.int64)
    if plan is not None:
        shown = (plan["copies"] + plan["mirrored"]).reindex(metadata.index, fill_value=0).to_numpy()
    return pd.Series([*(shown @ labels), shown[is_only(labels, NO_FINDING)].sum()], index=list(LABELS))
