"""Which image an epoch of which split shows, and how often: planned on the metadata, before a pixel is read.

A protocol is a frozen dataclass of settings with `plan(metadata)`, a pure function: a metadata table (METADATA_COLUMNS)
-> a DataFrame with the columns image_id, split ("train", "validation", "test"), copies (how often an epoch shows the
image as it is) and mirrored (how often as a mirror image), whose index is the metadata's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from cxrfpn.data.balancing import SPLITS, ReportProtocol
from cxrfpn.data.schema import VALIDATION_FOLD, SourceError


class CohortProtocol(Protocol):
    """What a protocol offers."""

    def plan(self, metadata: pd.DataFrame) -> pd.DataFrame:
        """Plan a checked metadata table."""


@dataclass(frozen=True)
class OfficialProtocol:
    """NIH's own test list; validation is fold 0 of the train list, or a tenth of its patients where none has a fold.

    Raises (by `plan`):
        SourceError: an image without an official split or, where others have one, without a fold.
    """

    seed: int = 0

    def plan(self, metadata: pd.DataFrame) -> pd.DataFrame:
        """Every image once, as the official lists and folds have it."""
        unknown = ~metadata["split"].isin(["train", "test"])
        if unknown.any():
            raise SourceError(
                f"{unknown.sum()} images have no official split, {metadata['image_id'][unknown].iloc[0]} the first; "
                "take the protocol patients"
            )
        splits = metadata["split"].to_numpy(object, copy=True)
        train = splits == "train"
        folds = metadata["fold"][train]
        if folds.isna().all():
            splits[train] = _draw_patients(metadata["patient_id"][train], 0.1, 0, self.seed)
        elif folds.isna().any():
            raise SourceError(f"image {metadata['image_id'][train][folds.isna()].iloc[0]} has no fold; others have one")
        else:
            splits[train] = np.where(folds == VALIDATION_FOLD, "validation", "train")
        return _each_once(metadata, splits)


@dataclass(frozen=True)
class PatientsProtocol:
    """A split of any table by patient, drawn by a seed; the shares are of the patients.

    The draw depends on the patients' ids, not on the order of the table.

    Raises:
        ValueError: shares outside 0..1, together over 1 as well.
        SourceError (by `plan`): too few patients for the splits that have a share.
    """

    seed: int = 0
    validation: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test > 1:
            raise ValueError(
                f"patients protocol: validation {self.validation} and test {self.test} are no shares of a whole"
            )

    def plan(self, metadata: pd.DataFrame) -> pd.DataFrame:
        """Every image once, a patient's images all in one split."""
        return _each_once(metadata, _draw_patients(metadata["patient_id"], self.validation, self.test, self.seed))


PROTOCOLS: dict[str, type] = {"official": OfficialProtocol, "report": ReportProtocol, "patients": PatientsProtocol}


def protocol_name(protocol: CohortProtocol) -> str:
    """Return the name in PROTOCOLS of a protocol."""
    return next(name for name, kind in PROTOCOLS.items() if type(protocol) is kind)


def plan_cohort(metadata: pd.DataFrame, protocol: CohortProtocol, say: Callable[[str], object] = print) -> pd.DataFrame:
    """Check a metadata table, plan it, and say what came of it in one line.

    The report's protocol shares patients between the splits, and the line says how many; any other is refused if it
    does.

    Raises:
        SourceError: no images, an image twice, one without a patient, a patient in two splits, or what the protocol
            cannot plan.
    """
    _check(metadata)
    plan = protocol.plan(metadata)
    shown = (plan["copies"] + plan["mirrored"]).groupby(plan["split"]).sum()
    line = ", ".join(f"{split} {shown[split]:,}" for split in SPLITS if split in shown)
    leaking = leaking_patients(metadata, plan)
    if len(leaking) and not isinstance(protocol, ReportProtocol):
        raise SourceError(f"patient {leaking[0]} is in more than one split; take the protocol patients")
    leak = f"; {len(leaking):,} patients are in more than one split (as in the report)" if len(leaking) else ""
    say(f"images an epoch: {line}{leak}")
    return plan


def leaking_patients(metadata: pd.DataFrame, plan: pd.DataFrame) -> list[str]:
    """Return the patients with images in more than one split of a plan."""
    codes, patients = pd.factorize(metadata["patient_id"].loc[plan.index])
    seen = np.zeros((len(patients), len(SPLITS)), bool)
    seen[codes, pd.Categorical(plan["split"], SPLITS).codes] = True
    return patients[seen.sum(axis=1) > 1].tolist()


def _check(metadata: pd.DataFrame) -> None:
    if metadata.empty:
        raise SourceError("the source has no images")
    if (twice := metadata["image_id"].duplicated()).any():
        raise SourceError(f"image {metadata['image_id'][twice].iloc[0]} is there twice; image ids must differ")
    if (nobody := metadata["patient_id"].isna()).any():
        raise SourceError(
            f"image {metadata['image_id'][nobody].iloc[0]} has no patient id; "
            "give each image an id of its own where patients are not known"
        )


def _draw_patients(patient_ids: pd.Series, validation: float, test: float, seed: int) -> np.ndarray:
    """Return a split [N] for each image, the same for all images of a patient."""
    codes, patients = pd.factorize(patient_ids)
    order = np.argsort(np.asarray(patients, str))[np.random.default_rng(seed).permutation(len(patients))]
    tested, validated = round(test * len(patients)), round(validation * len(patients))
    splits = np.full(len(patients), "train", object)
    splits[order[:tested]] = "test"
    splits[order[tested : tested + validated]] = "validation"
    for split, share in {"train": 1 - validation - test, "validation": validation, "test": test}.items():
        if share > 1e-9 and split not in splits:
            raise SourceError(f"{len(patients)} patients are too few to split: {split} would be empty")
    return splits[codes]


def _each_once(metadata: pd.DataFrame, splits: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"image_id": metadata["image_id"], "split": splits, "copies": 1, "mirrored": 0})
