"""Folds of patients: what is fitted on some is measured on others."""

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
