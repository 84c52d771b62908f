"""The report's protocol: undersampled, split by image, mirrored, replicated and cut.

From the report "Computational Vision Model for Multi-Label Classification for Chest X-Ray Dataset - DenseNet" (2025),
data set and preprocessing. Its split is by image, so that most patients of the test set have been trained on: figures
from it are for comparison with the report, and with nothing else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.labels import LABELS, NO_FINDING, is_only, label_matrix
from cxrfpn.data.schema import SourceError

UNDERSAMPLING = {NO_FINDING: 0.10, "Infiltration": 0.15, "Effusion": 0.50, "Atelectasis": 0.50}
TRAIN_CUT = {NO_FINDING: 0.25, "Atelectasis": 0.50}
SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)


@dataclass(frozen=True)
class ReportProtocol:
    """How the report makes its train, validation and test sets; the defaults are its numbers.

    The report leaves some of it open. Our readings:

    - A share of n images is round(share * n) of them, drawn without replacement.
    - "Stratified on the first letters of the finding labels": the labels are written as NIH does, "A|B" in the order of
      the alphabet, and images with the same first `stratum_letters` letters make a stratum. Of each stratum each split
      gets its share, to within one image; of the whole, exactly.
    - The test share is taken from all images, the validation share from all images as well (72 / 8 / 20).
    - The classes are the 14 findings, an image belongs to each that it shows, and No Finding is no class.
    - "Doubled with mirrored copies": all classes are counted first; then each image that belongs to a class under
      `mirror_below` gets one mirror image, however many such classes it belongs to. With `mirror_mixed` false only an
      image without a second finding does. That is not what the text says, but it is probably what was done: the loss
      weights log(1 + N / n) then differ from the report's table by 0.036 in the mean, instead of 0.133.
    - "10 % of No Finding", as of the other labels, is a share of the images, not of the patients.
    - "Replicated up to": the rarest class first, counted again before each, since an image that is copied for one class
      counts for its others. The copies are shared out evenly over the class's images and mirror images, and what does
      not divide goes to some of them drawn at random.
    - The cut of train takes images with all their copies. "Atelectasis is cut to 50 %" is read like the undersampling:
      of the images that show Atelectasis and nothing else.
    - Copies count as images of an epoch. The report names about 180 steps of 160 images, which our 28,796 distinct
      images would give exactly (with copies there are 211, or 246 with `mirror_mixed`). But its table of loss weights
      shows that it did replicate: Hernia and Pneumonia have one weight, 3.0943, as classes have that were both brought
      to 1,500. Then N is 31,608, or 198 steps; without copies Hernia's weight would be 5.15. Our set before the split
      is 6 % larger than the report's (45,596 against 42,935 images), and 94 % of our 211 steps are 199.

    Args:
        seed: of all the draws. They depend on the image ids, not on the order of the table.
        undersampling: label -> share kept of the images that have this label alone, in the whole set.
        validation, test: shares of the rest.
        stratum_letters: how many letters of the labels make a stratum.
        mirror_below: classes of train under this many images are doubled; 0 mirrors nothing (a mirrored chest has its
            heart on the wrong side).
        mirror_mixed: whether images with several findings are mirrored too.
        replicate_to: classes of train under this many are replicated up to it.
        train_cut: label -> share kept of the images of train that have this label alone.

    Raises:
        ValueError: a share outside 0..1, shares that leave a split empty, or an unknown label.
    """

    seed: int = 0
    undersampling: Mapping[str, float] = field(default_factory=UNDERSAMPLING.copy)
    validation: float = 0.08
    test: float = 0.20
    stratum_letters: int = 4
    mirror_below: int = 3000
    mirror_mixed: bool = True
    replicate_to: int = 1500
    train_cut: Mapping[str, float] = field(default_factory=TRAIN_CUT.copy)

    def __post_init__(self) -> None:
        if min(self.validation, self.test) <= 0 or self.validation + self.test >= 1:
            raise ValueError(f"report protocol: validation {self.validation} and test {self.test} leave an empty split")
        for label, share in (*self.undersampling.items(), *self.train_cut.items()):
            if not 0 <= share <= 1:
                raise ValueError(f"report protocol: the share {share} of {label} is outside 0 to 1")
        if unknown := (set(self.undersampling) | set(self.train_cut)) - set(LABELS):
            raise ValueError(
                f"report protocol: {', '.join(sorted(unknown))} is no label; known are {', '.join(LABELS)}"
            )

    def plan(self, metadata: pd.DataFrame) -> pd.DataFrame:
        """Return the plan of the report's experiment: image_id, split, copies, mirrored, by the index of `metadata`."""
        *_, (_, table) = self._steps(metadata)
        return table.plan()

    def steps(self, metadata: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield the plan after each step, with the step's name; before they are split, all images are in train.

        Raises:
            SourceError: an unknown finding, or too few images for three splits.
        """
        for name, table in self._steps(metadata):
            yield name, table.plan()

    def _steps(self, metadata: pd.DataFrame) -> Iterator[tuple[str, "_Table"]]:
        table = _Table(metadata)
        yield "whole set", table
        for label, share in self.undersampling.items():
            table.thin(is_only(table.labels, label), share, self._draws("undersampling", label))
        yield "undersampled", table
        table.assign_splits(self.validation, self.test, self.stratum_letters, self._draws("split"))
        yield "split", table
        table.mirror(self.mirror_below, self.mirror_mixed)
        yield "mirrored", table
        table.replicate(self.replicate_to, self._draws("replication"))
        yield "replicated", table
        for label, share in self.train_cut.items():
            table.thin(table.in_train & is_only(table.labels, label), share, self._draws("cut", label))
        yield "cut", table

    def _draws(self, step: str, label: str = "") -> np.random.Generator:
        """Return a generator for each draw: changing one step leaves the draws of the others as they were."""
        return np.random.default_rng([self.seed, *f"{step} {label}".encode()])


class _Table:
    """The images that are still in, sorted by their ids, and how often each is shown."""

    def __init__(self, metadata: pd.DataFrame) -> None:
        self.rows = metadata["image_id"].argsort().to_numpy()
        self.metadata = metadata
        self.labels = label_matrix(metadata)[self.rows]
        self.splits = np.full(len(metadata), TRAIN, np.int8)
        self.shown = np.zeros((len(metadata), 2), np.int64)  # as it is, mirrored
        self.shown[:, 0] = 1

    @property
    def in_train(self) -> np.ndarray:
        return self.splits == TRAIN

    def plan(self) -> pd.DataFrame:
        splits = pd.array(SPLITS, dtype="str").take(self.splits)
        images = self.metadata["image_id"].iloc[self.rows]
        return pd.DataFrame(
            {"image_id": images, "split": splits, "copies": self.shown[:, 0], "mirrored": self.shown[:, 1]}
        )

    def thin(self, chosen: np.ndarray, share: float, random: np.random.Generator) -> None:
        """Keep a share of the chosen [N] bool, and all of the others."""
        places = random.permutation(np.flatnonzero(chosen))
        kept = np.ones(len(self.rows), bool)
        kept[places[round(share * len(places)) :]] = False
        self.rows, self.labels, self.splits, self.shown = (
            values[kept] for values in (self.rows, self.labels, self.splits, self.shown)
        )

    def assign_splits(self, validation: float, test: float, letters: int, random: np.random.Generator) -> None:
        """Line up the strata, each in random order, and take every 1/share-th image of the line (systematic sampling).

        Raises:
            SourceError: a split is left empty.
        """
        line = np.lexsort((random.random(len(self.rows)), _strata(self.labels, letters)))
        self.splits[_spread(line, test)] = TEST
        rest = line[self.in_train[line]]
        self.splits[_spread(rest, validation / (1 - test))] = VALIDATION
        if empty := [name for split, name in enumerate(SPLITS) if split not in self.splits]:
            raise SourceError(f"{len(self.rows)} images are too few for the report's protocol: {empty[0]} is empty")

    def mirror(self, below: int, mixed: bool) -> None:
        """One mirror image of each train image of a class with under `below` images."""
        rare = self.labels[self.in_train].sum(axis=0) < below
        several = self.labels.sum(axis=1) > 1
        self.shown[self.in_train & self.labels[:, rare].any(axis=1) & (mixed | ~several), 1] = 1

    def replicate(self, count: int, random: np.random.Generator) -> None:
        """Bring each class of train that has images to `count` of them, the rarest first."""
        train = np.flatnonzero(self.in_train)
        for _ in FINDINGS:
            counts = self.shown[train].sum(axis=1) @ self.labels[train]
            rare = np.flatnonzero((counts > 0) & (counts < count))
            if not len(rare):
                return
            finding = rare[np.argmin(counts[rare])]
            members = train[self.labels[train, finding]]
            kinds = np.argwhere(self.shown[members] > 0)  # (member, as it is or mirrored)
            each, left = divmod(count - counts[finding], len(kinds))
            extra = np.full(len(kinds), each)
            extra[random.permutation(len(kinds))[:left]] += 1
            self.shown[members[kinds[:, 0]], kinds[:, 1]] += extra


def _strata(labels: np.ndarray, letters: int) -> np.ndarray:
    """Return the first letters of "A|B", the findings in the order of the alphabet, as numbers [N]."""
    sets, which = np.unique(labels @ (1 << np.arange(len(FINDINGS))), return_inverse=True)
    names = [
        "|".join(sorted(name for place, name in enumerate(FINDINGS) if bits >> place & 1)) or NO_FINDING
        for bits in sets.tolist()
    ]
    return np.unique([name[:letters] for name in names], return_inverse=True)[1][which]


def _spread(line: np.ndarray, share: float) -> np.ndarray:
    """Every 1/share-th of a line: round(share * length) of it, evenly spread."""
    steps = np.floor(np.arange(len(line) + 1) * share + 0.5)
    return line[np.diff(steps) > 0]
