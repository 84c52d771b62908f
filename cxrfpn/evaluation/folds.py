"""Folds of patients: what is fitted on some is measured on others."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FOLDS = 5


def deal_patients(patients: NDArray, seed: int = 0) -> tuple[NDArray[np.intp], int]:
    """Deal patients into FOLDS folds, or into as many as there are patients.

    Args:
        patients: [N] ids, of N images.

    Returns:
        the fold of each image [N], and how many folds there are.
    """
    names, codes = np.unique(patients, return_inverse=True)
    folds = min(FOLDS, len(names))
    return (np.random.default_rng(seed).permutation(len(names)) % folds)[codes], folds


def split_patients(patients: NDArray, seed: int = 0) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield each fold's images and all others, [N] each; the images of a single patient are their own others."""
    fold, folds = deal_patients(patients, seed)
    for number in range(folds):
        held_out = fold == number
        yield held_out, ~held_out if folds > 1 else held_out
