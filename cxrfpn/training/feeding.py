"""Feed images to the network: prepared once, planned, loaded ahead, augmented, moved to the device."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cxrfpn.data.augment import augment, compress, draw_parameters, evaluation_view
from cxrfpn.data.balancing import SPLITS
from cxrfpn.data.cohort import plan_cohort
from cxrfpn.data.labels import truth_matrix
from cxrfpn.data.loading import Batch, Loader
from cxrfpn.data.preparing import prepare
from cxrfpn.data.schema import VALIDATION_FOLD, SourceError
from cxrfpn.data.shards import Images, PreparedShards, read_manifest
from cxrfpn.data.sources import open_source
from cxrfpn.data.streaming import StreamedImages
from cxrfpn.training.recipe import STREAMED, FurtherSource, Recipe

T = TypeVar("T")
# Patient inputs are hidden by draws of their own, apart from those of the augmentation.
_PATIENT_STREAM = 0x7A71


@dataclass(frozen=True)
class Feed:
    """The images of a run, prepared or streamed, and the plan of its cohort."""

    shards: Images
    plan: pd.DataFrame

    def loader(self, recipe: Recipe, split: str, rank: int, world_size: int) -> Loader:
        """Return the batches of a split: shuffled and thinned out for training, complete and in order otherwise."""
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

    def validation_rows(self, recipe: Recipe) -> pd.DataFrame:
        """Return the metadata of the validation images, in the order in which they are scored."""
        rows = self.loader(recipe, "validation", rank=0, world_size=1).rows
        return self.shards.metadata().iloc[rows].reset_index(drop=True)


def open_feed(recipe: Recipe, say: Callable[[str], object]) -> Feed:
    """Open a recipe's images, preparing them first where that has not been done (or not to the end).

    A source `parquet:FOLDER` whose folder prepare.py made is read as it is. With `prepared: none` nothing is prepared,
    and the images are streamed from the source in every epoch.

    Raises:
        SourceError: the source, its prepared folder or the cohort cannot be used.
        PrepareError: preparing had to stop.
    """
    shards = _open_images(recipe)
    metadata = shards.metadata()
    plan = plan_cohort(metadata[shards.folders == 0], recipe.protocol(), say)
    for number, further in enumerate(recipe.more_sources, start=1):
        new = metadata[shards.folders == number]
        plan = pd.concat([plan, plan_further(new, metadata.loc[plan.index], plan, further, say)])
    feed = Feed(shards, plan)
    known = feed.validation_rows(recipe)
    fitted_on = truth_matrix(known[known["split"] != "test"], recipe.findings)
    both = (fitted_on == 1).any(axis=0) & (fitted_on == 0).any(axis=0)
    if not both.any():  # refuse now, and not after the first epoch
        raise SourceError(
            f"{shards.folder}: no finding is both present and absent among the {len(fitted_on)} validation images that "
            "are on no test list: no epoch can be validated, and no threshold fitted"
        )
    if isinstance(shards, StreamedImages):
        shards.keep(feed.loader(recipe, "validation", rank=0, world_size=1).rows)
    return feed


def _open_images(recipe: Recipe) -> Images:
    if recipe.prepared == STREAMED:
        further = [open_source(further.source, findings=recipe.findings) for further in recipe.more_sources]
        own = open_source(recipe.source, columns=recipe.columns, findings=recipe.findings)
        return StreamedImages([own, *further], recipe.stored_size, recipe.workers, recipe.findings)
    folder = _prepared(recipe.source, recipe, recipe.prepared, recipe.columns)
    more = (_prepared(further.source, recipe) for further in recipe.more_sources)
    return PreparedShards(folder, *more, findings=recipe.findings)


def plan_further(
    metadata: pd.DataFrame,
    planned: pd.DataFrame,
    plan: pd.DataFrame,
    further: FurtherSource,
    say: Callable[[str], object],
) -> pd.DataFrame:
    """Plan the images of a further source beside those that are planned already.

    An image whose id is planned already keeps its place in the plan; only its pixels are the further source's.

    Args:
        metadata, planned: METADATA_COLUMNS of the further source, and of the images that `plan` holds so far.

    Returns:
        a plan of the images that are new: for training, or for validation where the source's fold says so.

    Raises:
        SourceError: it holds an image of the test split, whose pixels must stay those of the run's own source.
    """
    splits = plan.set_index("image_id")["split"]
    known = metadata["image_id"].isin(splits.index)
    if (tested := splits.reindex(metadata["image_id"]).eq("test").to_numpy()).any():
        image = metadata["image_id"][tested].iloc[0]
        raise SourceError(f"{further.source}: holds image {image}, which the test split of the run's own source holds")
    patients = {split: set(planned["patient_id"][(plan["split"] == split).to_numpy()]) for split in SPLITS}
    is_test = (metadata["split"] == "test") | metadata["patient_id"].isin(patients["test"])
    is_validation = (metadata["fold"] == VALIDATION_FOLD) | metadata["patient_id"].isin(patients["validation"])
    is_validation &= ~metadata["patient_id"].isin(patients["train"])
    taken = ~known & ~is_test & (further.validate | ~is_validation)
    new = pd.DataFrame({"image_id": metadata["image_id"], "split": "train", "copies": 1, "mirrored": 0})
    new["share"] = further.share
    new.loc[is_validation, ["split", "share"]] = "validation", 1.0
    new = new[taken]
    say(
        f"{further.source}: {(new['split'] == 'train').sum():,} images to train on, "
        f"{(new['split'] == 'validation').sum():,} to validate on, {known.sum():,} in place of others, "
        f"{(~taken & ~known).sum():,} left out (held out, or of patients that are)"
    )
    return new


def training_batches(
    loader: Loader, recipe: Recipe, size: int, epoch: int, first_step: int, device: torch.device
) -> Iterator[tuple[Batch, Tensor, Tensor, float]]:
    """Yield the batches of an epoch, augmented and on the device, with the seconds waited for each.

    For a GPU, the next batch is made by a thread while the network works on this one. On a CPU it is made when it is
    asked for: the network's own threads fill every core, and one at work beside them makes all of them wait (a fifth of
    the time on two cores, where making a batch takes a hundredth).

    Yields:
        the batch as it was loaded, pixel_values [B,3,size,size] float32 channels_last, patients [B,3] with NaN where
        unknown or hidden, seconds.
    """

    def make(batch: Batch) -> tuple[Batch, Tensor, Tensor]:
        parameters = draw_parameters(recipe.augmentation, len(batch), recipe.seed, epoch, batch.first)
        pixels = compress(batch.pixels, parameters).to(device, non_blocking=True)
        pixel_values = augment(pixels, parameters, size)
        patients = hide_inputs(batch.patients, recipe.patient_dropout, recipe.seed, epoch, batch.first)
        return batch, pixel_values.contiguous(memory_format=torch.channels_last), patients.to(device)

    made: Iterator[tuple[Batch, Tensor, Tensor]] = map(make, loader.batches(epoch, first_step))
    if device.type != "cpu":
        made = one_ahead(made)
    started = time.perf_counter()
    for batch, pixel_values, patients in made:
        yield batch, pixel_values, patients, time.perf_counter() - started
        started = time.perf_counter()


def validation_batches(loader: Loader, size: int, device: torch.device) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Yield the batches of a split as the image processor would make them, on the device."""
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
    """Yield the same items, each made by a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


def _prepared(source: str, recipe: Recipe, folder: str | None = None, columns: Mapping[str, str] | None = None) -> Path:
    """Return the folder of a source's prepared shards, and make it where it is missing or unfinished."""
    given = Path(source.removeprefix("parquet:"))
    if source.startswith("parquet:") and read_manifest(given) is not None:
        return given
    made = Path(folder or f"data/{_slug(source)}-{recipe.stored_size}")
    prepare(open_source(source, columns=columns, findings=recipe.findings), made, recipe.stored_size)
    return made


def _slug(source: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in source).strip("-").lower()
