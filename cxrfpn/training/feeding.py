"""Images on their way to the network: prepared once, planned, loaded ahead, augmented, brought to the device."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cxrfpn.data.augment import augment, draw_parameters, evaluation_view
from cxrfpn.data.cohort import plan_cohort
from cxrfpn.data.loading import Batch, Loader
from cxrfpn.data.preparing import prepare
from cxrfpn.data.schema import VALIDATION_FOLD, SourceError
from cxrfpn.data.shards import PreparedShards, read_manifest
from cxrfpn.data.sources import open_source
from cxrfpn.training.recipe import Recipe

T = TypeVar("T")
# Patient inputs are hidden by draws of their own, apart from those of the augmentation.
_PATIENT_STREAM = 0x7A71


@dataclass(frozen=True)
class Feed:
    """What a run reads: the prepared shards and the plan of its cohort."""

    shards: PreparedShards
    plan: pd.DataFrame

    def loader(self, recipe: Recipe, split: str, rank: int, world_size: int) -> Loader:
        """The batches of a split: shuffled and thinned out for training, in order and all of them for judging."""
        training = split == "train"
        return Loader(
            self.shards,
            self.plan,
            split,
            recipe.batch_size,
            shuffle=training,
            seed=recipe.seed,
            no_finding_share=recipe.no_finding_share if training else 1.0,
            rank=rank,
            world_size=world_size,
            workers=recipe.workers,
        )

    def labels(self, split: str) -> Tensor:
        """The labels [N,14] of a split, each image as often as an epoch shows it."""
        rows = self.plan[self.plan["split"] == split]
        index = pd.Index(self.shards.image_ids.to_pylist()).get_indexer(rows["image_id"])
        times = (rows["copies"] + rows["mirrored"]).to_numpy()[index >= 0]
        return torch.from_numpy(np.repeat(self.shards.labels[index[index >= 0]], times, axis=0))


def open_feed(recipe: Recipe, say: Callable[[str], object]) -> Feed:
    """Open a recipe's images, preparing them first where that has not been done (or not to the end).

    A source `parquet:FOLDER` whose folder prepare.py made is read as it is.

    Raises:
        SourceError: the source, its prepared folder or the cohort cannot be used.
        PrepareError: preparing had to stop.
    """
    folder = _prepared(recipe.source, recipe, recipe.prepared)
    shards = PreparedShards(folder, *(_prepared(source, recipe) for source in recipe.more_sources))
    metadata = shards.metadata()
    own = shards.folders == 0
    plan = plan_cohort(metadata[own], recipe.protocol(), say)
    if recipe.more_sources:
        plan = pd.concat([plan, plan_more(metadata[~own], metadata[own], plan, say)])
    feed = Feed(shards, plan)
    judged = feed.labels("validation").bool()
    if not (judged.any(dim=0) & ~judged.all(dim=0)).any():  # said now, and not after the first epoch
        raise SourceError(
            f"{folder}: no finding is both present and absent among the {len(judged)} validation images: "
            "no epoch can be judged"
        )
    return feed


def plan_more(more: pd.DataFrame, own: pd.DataFrame, plan: pd.DataFrame, say: Callable[[str], object]) -> pd.DataFrame:
    """Plan the images of further sources, which are for training only, beside the plan of a run's own source.

    Left out: what the source itself keeps for validation or test, and every image of a patient that is validated or
    tested on.

    Args:
        more, own: metadata (METADATA_COLUMNS) of the further sources and of the run's own.
        plan: the plan of `own`.
    """
    judged = own["patient_id"].loc[plan.index[plan["split"] != "train"]]
    kept = (more["split"] != "test") & (more["fold"] != VALIDATION_FOLD) & ~more["patient_id"].isin(judged)
    say(f"further images to train on: {kept.sum():,} ({(~kept).sum():,} others are held out, or of patients that are)")
    return pd.DataFrame({"image_id": more["image_id"][kept], "split": "train", "copies": 1, "mirrored": 0})


def training_batches(
    loader: Loader, recipe: Recipe, size: int, epoch: int, first_step: int, device: torch.device
) -> Iterator[tuple[Batch, Tensor, Tensor, float]]:
    """The batches of an epoch, augmented and on the device, with the seconds that were waited for each.

    For a GPU, the next batch is made by a thread while the network works on this one. On a CPU it is made when it is
    asked for: the network's own threads fill every core, and one at work beside them makes all of them wait (a fifth of
    the time on two cores, where making a batch takes a hundredth).

    Yields:
        the batch as it was loaded, pixel_values [B,3,size,size] float32 channels_last, patients [B,3] with NaN where
        unknown or hidden, seconds.
    """

    def make(batch: Batch) -> tuple[Batch, Tensor, Tensor]:
        parameters = draw_parameters(recipe.augmentation, len(batch), recipe.seed, epoch, batch.first)
        pixel_values = augment(batch.pixels.to(device, non_blocking=True), parameters, size)
        patients = hide_inputs(batch.patients, recipe.patient_dropout, recipe.seed, epoch, batch.first)
        return batch, pixel_values.contiguous(memory_format=torch.channels_last), patients.to(device)

    made = map(make, loader.batches(epoch, first_step))
    if device.type != "cpu":
        made = one_ahead(made)
    started = time.perf_counter()
    for batch, pixel_values, patients in made:
        yield batch, pixel_values, patients, time.perf_counter() - started
        started = time.perf_counter()


def judging_batches(loader: Loader, size: int, device: torch.device) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """The batches of a split as the image processor would show them, on the device."""
    for batch in loader.batches():
        pixel_values = evaluation_view(batch.pixels, size).to(device)
        yield batch, pixel_values.contiguous(memory_format=torch.channels_last), batch.patients.to(device)


def hide_inputs(patients: Tensor, share: float, seed: int, epoch: int, first: int) -> Tensor:
    """Make each patient input unknown (NaN) with probability `share`, drawn by its place in the epoch."""
    philox = np.random.Philox(key=np.array([seed ^ (_PATIENT_STREAM << 32), epoch], np.uint64))
    philox.advance(first)  # four draws a place, of which three are used
    draws = np.random.Generator(philox).random((len(patients), 4))[:, : patients.shape[1]]
    return patients.masked_fill(torch.from_numpy(draws < share), torch.nan)


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made by a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


def _prepared(source: str, recipe: Recipe, folder: str | None = None) -> Path:
    """The folder of a source's prepared shards, made now where it is not there or not finished."""
    given = Path(source.removeprefix("parquet:"))
    if source.startswith("parquet:") and read_manifest(given) is not None:
        return given
    made = Path(folder or f"data/{_slug(source)}-{recipe.stored_size}")
    prepare(open_source(source), made, recipe.stored_size)
    return made


def _slug(source: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in source).strip("-").lower()
