"""Batches from prepared shards, in an order that (seed, epoch, step) always names.

What "shuffled" means here. An epoch's entries (a row, or a copy of one) are gathered by row group, the groups are
permuted, the line of groups is cut into windows of `window` entries, and each window's entries are permuted. With
row groups of 100 images, themselves drawn at random from a part of the source, a window of 4,096 mixes 40 of them: a
batch sees all over the data set, while a row group is read once an epoch (twice where a window ends in it) and two
or three windows of image files are in memory. The second, third... copies of a group's rows make groups of their own,
so that copies come at different times.

The whole order is computed from (seed, epoch) before the first image is read, in milliseconds. To resume is to start
at another step: nothing is read and thrown away, lost or repeated.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from cxrfpn.data.schema import SourceError
from cxrfpn.data.shards import Images

WINDOW = 4096


@dataclass(frozen=True)
class Batch:
    """B radiographs of a step.

    pixels [B,S,S] uint8 (mirrored already where `mirrored` [B] bool says so), patients [B,3] float32 with NaN for
    unknown, labels [B,14] float32, source_sides [B] (the shorter side of each file, in pixels); `first` is the place of
    the first of them in the epoch's order.
    """

    pixels: Tensor
    patients: Tensor
    labels: Tensor
    mirrored: Tensor
    source_sides: Tensor
    image_ids: list[str]
    patient_ids: list[str]
    epoch: int
    step: int
    first: int

    def __len__(self) -> int:
        return len(self.image_ids)


class Loader:
    """The batches of one split of a plan, for one rank of `world_size`.

    A step takes the next `world_size * batch_size` entries, and rank r the r-th slice of `batch_size` of them: 2 ranks
    see in a step what 1 rank sees in 2. The last step shares out the rest evenly, so that every rank has the same
    number of steps and every entry is seen exactly once; where less than one entry a rank is left, they join the step
    before. The order depends neither on the ranks nor on the workers, which only decode ahead.

    Args:
        shards: prepared images, or those of a stream.
        plan: one row for each image, with columns image_id, split, copies (how often an epoch shows it as it is),
            mirrored (how often as a mirror image) and, optionally, share (0 to 1, how many of the images with this
            share an epoch shows, drawn again each time); the rows of other splits are ignored, and so are the images
            that prepare.py listed as unreadable. Where several folders hold an id, the last one's image is taken.
        split: "train", "validation" or "test".
        batch_size: entries of one rank in one step.
        shuffle: False gives the order of the shards.
        no_finding_share: 0 to 1, the share of the entries without a finding that an epoch sees, drawn again each epoch.
        workers: threads that decode ahead (decoding holds no lock of Python's).

    Raises:
        SourceError: the plan names images that were not prepared or fewer than there are ranks, or the shards hold an
            image twice.
    """

    def __init__(
        self,
        shards: Images,
        plan: pd.DataFrame,
        split: str,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        no_finding_share: float = 1.0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 2,
        window: int = WINDOW,
    ) -> None:
        self.shards, self.batch_size, self.shuffle, self.seed = shards, batch_size, shuffle, seed
        self.rank, self.world_size, self.workers, self.window = rank, world_size, workers, window
        self.rows, self.mirrored, self._copy, share = _entries(shards, plan[plan["split"] == split])
        self.labels = shards.labels[self.rows]
        self._thinned = _thinned(share, (self.labels == 0).all(axis=1), no_finding_share)
        self.entries_an_epoch = len(self.rows) - sum(left_out for _, left_out in self._thinned)
        if self.entries_an_epoch < world_size:
            raise SourceError(f"{shards.folder}: the plan has {self.entries_an_epoch} images of the split {split!r}")

    def __len__(self) -> int:
        """Return the number of steps in an epoch, the same for every rank."""
        whole, left = divmod(self.entries_an_epoch, self.batch_size * self.world_size)
        return max(1, whole + (left >= self.world_size))

    def epoch_labels(self) -> np.ndarray:
        """Return the labels [M,14] of what an epoch shows over all ranks; each epoch shows as many of each finding."""
        return self.labels[self.order(0)]

    def order(self, epoch: int) -> np.ndarray:
        """Return the entries of an epoch, in their order."""
        random = np.random.default_rng((self.seed, epoch))
        left_out = [random.permutation(group)[:count] for group, count in self._thinned]
        entries = np.delete(np.arange(len(self.rows)), np.concatenate([np.empty(0, np.int64), *left_out]))
        if not self.shuffle:
            return entries
        groups = self.shards.groups[self.rows[entries]] * np.int64(self._copy.max() + 1) + self._copy[entries]
        names, which = np.unique(groups, return_inverse=True)
        entries = entries[np.argsort(random.permutation(len(names))[which], kind="stable")]
        windows = np.arange(len(entries)) // self.window
        return entries[np.lexsort((random.random(len(entries)), windows))]

    def places(self, step: int) -> tuple[int, int]:
        """Where in the epoch's order this rank's slice of a step begins and ends."""
        start = step * self.batch_size * self.world_size
        if step < len(self) - 1 or self.entries_an_epoch - start == self.batch_size * self.world_size:
            first = start + self.rank * self.batch_size
            return first, first + self.batch_size
        left = self.entries_an_epoch - start
        return start + left * self.rank // self.world_size, start + left * (self.rank + 1) // self.world_size

    def batches(self, epoch: int = 0, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `first_step` on.

        Raises:
            SourceError: a shard cannot be read, or an image in it cannot be decoded.
        """
        order = self.order(epoch)
        steps = range(first_step, len(self))
        own = np.concatenate([np.arange(*self.places(step)) for step in steps]) if steps else np.empty(0, np.int64)
        windows: dict[int, Future] = {}
        ahead: deque[Future] = deque()
        reader, decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(self.workers)
        try:
            for step in steps:
                first, last = self.places(step)
                needed = range(first // self.window, (max(last, first + 1) - 1) // self.window + 1)
                for number in range(needed[0], needed[-1] + 2):  # one window more than needed: read while others decode
                    if number not in windows:
                        places = own[slice(*np.searchsorted(own, (number * self.window, (number + 1) * self.window)))]
                        entries = order[places]
                        windows[number] = reader.submit(self.shards.read_images, self.rows[entries])
                for number in [old for old in windows if old < needed[0]]:
                    del windows[number]
                files = [windows[number] for number in needed]
                ahead.append(decoders.submit(self._batch, order[first:last], files, epoch, step, first))
                if len(ahead) > self.workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for pool in (decoders, reader):
                pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, entries: np.ndarray, windows: list[Future], epoch: int, step: int, first: int) -> Batch:
        files: dict[int, pa.Buffer] = {}
        for window in windows:
            files |= window.result()
        rows, mirrored, size = self.rows[entries], self.mirrored[entries], self.shards.size
        pixels = np.empty((len(rows), size, size), np.uint8)
        image_ids = self.shards.image_ids.take(rows).to_pylist()
        for index, (row, mirror) in enumerate(zip(rows, mirrored, strict=True)):
            image = cv2.imdecode(np.frombuffer(files[row], np.uint8), cv2.IMREAD_GRAYSCALE)
            if image is None or image.shape != (size, size):
                raise SourceError(f"{self.shards.folder}: image {image_ids[index]} is damaged; prepare it again")
            pixels[index] = image[:, ::-1] if mirror else image
        return Batch(
            pixels=torch.from_numpy(pixels),
            patients=torch.from_numpy(self.shards.patients[rows]),
            labels=torch.from_numpy(self.labels[entries]),
            mirrored=torch.from_numpy(mirrored),
            source_sides=torch.from_numpy(self.shards.source_sides[rows]),
            image_ids=image_ids,
            patient_ids=self.shards.patient_ids.take(rows).to_pylist(),
            epoch=epoch,
            step=step,
            first=first,
        )


def _entries(shards: Images, plan: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a plan's rows and copies of rows, in the shards' order: row, mirrored, which copy it is, share shown."""
    plan = plan[~plan["image_id"].isin(list(shards.skipped))]
    rows = shards.rows_of(plan["image_id"])
    if (rows < 0).any():
        missing = plan["image_id"][rows < 0]
        raise SourceError(f"{shards.folder}: lacks {len(missing)} images of the plan, {missing.iloc[0]} the first")
    order = np.argsort(rows)
    rows, plain, flipped = rows[order], plan["copies"].to_numpy()[order], plan["mirrored"].to_numpy()[order]
    share = (plan["share"].fillna(1.0) if "share" in plan else pd.Series(1.0, plan.index)).to_numpy()[order]
    repeats = plain + flipped
    copy = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return np.repeat(rows, repeats), copy >= np.repeat(plain, repeats), copy, np.repeat(share, repeats)


def _thinned(share: np.ndarray, no_finding: np.ndarray, no_finding_share: float) -> list[tuple[np.ndarray, int]]:
    """Return the groups of entries of which an epoch leaves some out, each with how many it leaves out.

    Args:
        share, no_finding: [N], of each entry: the share of its like that an epoch shows, and whether it has no finding.
    """
    groups = []
    for each in np.unique(share):
        for healthy, shown in ((True, each * no_finding_share), (False, each)):
            group = np.flatnonzero((share == each) & (no_finding == healthy))
            if healthy or shown < 1:
                groups.append((group, len(group) - round(shown * len(group))))
    return groups
