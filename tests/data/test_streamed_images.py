"""Images streamed from a source: the very batches that shards of the same parts give, and nothing read in vain."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxrfpn.data.cohort import PatientsProtocol, plan_cohort
from cxrfpn.data.loading import Batch, Loader
from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.preparing import prepare
from cxrfpn.data.schema import SourceError
from cxrfpn.data.shards import PreparedShards
from cxrfpn.data.sources import open_source
from cxrfpn.data.streaming import StreamedImages

REPO = "someone/chests"
PARTS = (30, 30, 20)


@pytest.fixture
def source(write_prepared, tmp_path: Path) -> str:
    write_prepared(tmp_path / "source", PARTS, size=32)
    (tmp_path / "source" / "prepare.json").unlink()
    return f"parquet:{tmp_path / 'source'}"


@pytest.fixture
def plan(source: str) -> pd.DataFrame:
    plan = plan_cohort(open_source(source).metadata(), PatientsProtocol(0, 0.2, 0.2), print)
    plan.loc[plan["split"] == "train", "mirrored"] = 1
    return plan


def loaders(images, plan: pd.DataFrame, world_size: int = 1, **options) -> list[Loader]:
    settings = {"batch_size": 8 // world_size, "window": 24, "world_size": world_size, **options}
    return [Loader(images, plan, "train", rank=rank, **settings) for rank in range(world_size)]


def flat(batches: Iterator[Batch]) -> dict[int, tuple[str, bool, bytes]]:
    """Place in the epoch -> what is shown there."""
    return {
        batch.first + index: (name, bool(batch.mirrored[index]), batch.pixels[index].numpy().tobytes())
        for batch in batches
        for index, name in enumerate(batch.image_ids)
    }


def test_each_epoch_shows_every_entry_once_as_prepared_shards_do(source, plan, tmp_path) -> None:
    prepare(open_source(source), tmp_path / "prepared", size=16, processes=1)
    prepared = PreparedShards(tmp_path / "prepared")
    images = StreamedImages([open_source(source)], size=16)
    assert sorted(images.image_ids.to_pylist()) == sorted(prepared.image_ids.to_pylist())
    pixels = {
        name: shown for name, mirrored, shown in flat(loaders(prepared, plan)[0].batches(0)).values() if not mirrored
    }
    (loader,) = loaders(images, plan, shuffle=True)
    for epoch in range(2):
        shown = flat(loader.batches(epoch))
        expected = [
            (name, mirrored) for name in plan["image_id"][plan["split"] == "train"] for mirrored in (False, True)
        ]
        assert sorted((name, mirrored) for name, mirrored, _ in shown.values()) == sorted(expected)
        assert list(shown) == list(range(len(expected)))
        assert all(data == pixels[name] for name, mirrored, data in shown.values() if not mirrored)
    assert flat(loader.batches(0)) != flat(loader.batches(1))
    rows = images.rows_of([name for name, _, _ in shown.values()])
    assert (images.source_sides[rows] == 32).all()


def test_two_processes_see_each_row_once_and_a_resume_neither_loses_nor_repeats(source, plan) -> None:
    images = StreamedImages([open_source(source)], size=16)
    whole = flat(loaders(images, plan)[0].batches(1))
    shares = [flat(loader.batches(1)) for loader in loaders(images, plan, world_size=2)]
    assert not set(shares[0]) & set(shares[1]) and shares[0] | shares[1] == whole
    (loader,) = loaders(images, plan)
    for step in (1, 4, len(loader) - 1):
        resumed = flat(loader.batches(1, first_step=step))
        assert resumed == {place: shown for place, shown in whole.items() if place >= step * 8}


class Counting:
    """A source that remembers what was asked of it."""

    def __init__(self, name: str) -> None:
        self.inner, self.asked = open_source(name), []
        self.name, self.parts, self.part_metadata = self.inner.name, self.inner.parts, self.inner.part_metadata

    def rows(self, part, wanted=None):
        for row in self.inner.rows(part, wanted):
            self.asked.append(row.image_id)
            yield row


def test_a_process_reads_its_share_alone_and_validation_once(source, plan) -> None:
    counting = Counting(source)
    images = StreamedImages([counting], size=16)
    mine = flat(loaders(images, plan, world_size=2)[0].batches(0))
    assert len(counting.asked) <= len(mine) and set(counting.asked) == {name for name, _, _ in mine.values()}
    counting.asked.clear()
    validation = Loader(images, plan, "validation", batch_size=8, shuffle=False)
    images.keep(validation.rows)
    first, again = flat(validation.batches()), flat(validation.batches())
    assert first == again and len(counting.asked) == len(first)


def test_an_image_that_cannot_be_read_is_named(source, plan, tmp_path) -> None:
    rows = [row for part in open_source(source).parts() for row in open_source(source).rows(part)]
    from dataclasses import replace

    from cxrfpn.data.shards import write_shard

    broken = next(name for name in plan["image_id"][plan["split"] == "train"])
    damaged = [(replace(row, image=b"nothing") if row.image_id == broken else row, 32) for row in rows]
    (tmp_path / "damaged").mkdir()
    write_shard(tmp_path / "damaged" / "all.parquet", damaged, {})
    images = StreamedImages([open_source(f"parquet:{tmp_path / 'damaged'}")], size=16)
    with pytest.raises(SourceError, match=f"image {broken} cannot be read .*; without --prepared none it is left out"):
        list(loaders(images, plan)[0].batches(0))


def test_a_source_without_parts_of_its_own_is_refused() -> None:
    with pytest.raises(SourceError, match="phantom:5: cannot be streamed part by part; leave out --prepared none"):
        StreamedImages([PhantomSource(5)], size=16)


def test_what_is_known_of_the_images_is_as_in_shards(source, tmp_path) -> None:
    prepare(open_source(source), tmp_path / "prepared", size=16, processes=1)
    prepared, images = PreparedShards(tmp_path / "prepared"), StreamedImages([open_source(source)], size=16)
    order = prepared.rows_of(images.image_ids.to_pylist())
    assert np.array_equal(images.patients, prepared.patients[order], equal_nan=True)
    assert torch.equal(torch.from_numpy(images.labels), torch.from_numpy(prepared.labels[order]))
    ours = images.metadata().sort_values("image_id", ignore_index=True)
    pd.testing.assert_frame_equal(ours, prepared.metadata().sort_values("image_id", ignore_index=True))
