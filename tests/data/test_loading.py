"""Loading: one order, always the same, shared out exactly, resumed exactly."""

import itertools
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.loading import Loader
from cxrfpn.data.schema import SourceError
from cxrfpn.data.shards import PreparedShards

COUNTS = (250, 130, 170)
# What an earlier version drew: a change of the order would break every run that is to be resumed.
PROMISED = [496, 487, 468, 459, 405, 458, 489, 368, 464, 411, 217, 211]

# Prints the peak of its memory in KB. (What getrusage says includes that of the parent before the exec.)
STREAM_ALL = r"""
import re, sys
import pandas as pd
from cxrfpn.data.loading import Loader
from cxrfpn.data.shards import PreparedShards

shards = PreparedShards(sys.argv[1])
plan = pd.DataFrame({"image_id": shards.image_ids.to_pylist(), "split": "train", "copies": 1, "mirrored": 0})
seen = sum(len(batch) for batch in Loader(shards, plan, "train", 64).batches())
assert seen == len(plan)
print(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.fixture(scope="module")
def rows(write_prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loading") / "prepared"
    return folder, write_prepared(folder, COUNTS)


@pytest.fixture(scope="module")
def shards(rows) -> PreparedShards:
    return PreparedShards(rows[0])


@pytest.fixture(scope="module")
def plan(shards) -> pd.DataFrame:
    """In the source's order, not the shards': some rows twice, some mirrored, some not at all."""
    metadata = shards.metadata()
    number = np.arange(len(metadata))
    plan = pd.DataFrame({"image_id": metadata["image_id"], "split": metadata["split"]})
    plan["copies"], plan["mirrored"] = 1 + (number % 4 == 0) - (number % 6 == 1), (number % 9 == 0).astype(int)
    return plan.sample(frac=1, random_state=0)


def _seen(loader: Loader, epoch: int = 0, first_step: int = 0) -> list[tuple[str, bool]]:
    pairs = []
    for batch in loader.batches(epoch, first_step):
        pairs += zip(batch.image_ids, batch.mirrored.tolist(), strict=True)
    return pairs


def _planned(plan: pd.DataFrame, split: str) -> list[tuple[str, bool]]:
    mine = plan[plan["split"] == split]
    return sorted(
        [(image, False) for image in mine["image_id"].repeat(mine["copies"])]
        + [(image, True) for image in mine["image_id"].repeat(mine["mirrored"])]
    )


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_is_the_plan_exactly(shards, plan, split, shuffle):
    loader = Loader(shards, plan, split, 7, shuffle=shuffle, window=64)
    seen = _seen(loader)
    assert sorted(seen) == _planned(plan, split) and len(seen) == loader.entries_an_epoch
    assert (seen == _planned(plan, split)) == (not shuffle)  # the ids were numbered in the order of the shards


def test_a_batch_holds_what_is_known_of_its_images(rows, shards, plan):
    known = {row.image_id: row for row in rows[1]}
    for batch in Loader(shards, plan, "train", 32).batches(epoch=3):
        assert batch.pixels.shape == (len(batch), 16, 16) and batch.pixels.dtype == torch.uint8
        for index, image_id in enumerate(batch.image_ids):
            row = known[image_id]
            assert batch.labels[index].tolist() == [float(name in row.findings) for name in FINDINGS]
            assert batch.patient_ids[index] == row.patient_id
            assert torch.isnan(batch.patients[index, 0]) == (row.age is None)
            left, right = (float(batch.pixels[index, :, side].float().mean()) for side in (slice(0, 7), slice(9, 16)))
            dark, bright = (right, left) if not batch.mirrored[index] else (left, right)
            assert abs(dark - int(image_id[5:]) % 200) < 3 and abs(bright - dark - 50) < 4


def test_the_order_has_one_name_and_every_epoch_another_order(shards, plan):
    first = _seen(Loader(shards, plan, "train", 16, window=128, workers=1))
    assert first == _seen(Loader(shards, plan, "train", 16, window=128, workers=7))
    again = Loader(shards, plan.sample(frac=1, random_state=1), "train", 16, window=128)
    assert first == _seen(again) and first != _seen(again, epoch=1)
    assert first != _seen(Loader(shards, plan, "train", 16, window=128, seed=1))


def test_this_very_order_was_promised(shards, plan):
    loader = Loader(shards, plan, "train", 16, seed=5, window=128)
    assert loader.order(2)[:12].tolist() == PROMISED


@settings(max_examples=60, deadline=None)
@given(
    batch_size=st.integers(1, 90),
    world_size=st.integers(1, 9),
    share=st.sampled_from([0.5, 1.0]),
    entries=st.integers(20, 550),
)
def test_ranks_share_out_every_step_exactly(shards, plan, batch_size, world_size, share, entries):
    few = plan.sort_values("image_id").iloc[:entries].assign(split="train", copies=1)
    loaders = [
        Loader(shards, few, "train", batch_size, rank=rank, world_size=world_size, no_finding_share=share)
        for rank in range(world_size)
    ]
    for step in range(len(loaders[0])):
        places = [loader.places(step) for loader in loaders]
        begin = step * batch_size * world_size
        assert places[0][0] == begin and all(first < last for first, last in places)
        assert all(before[1] == after[0] for before, after in itertools.pairwise(places))
        is_last = step == len(loaders[0]) - 1
        assert places[-1][1] == (loaders[0].entries_an_epoch if is_last else begin + batch_size * world_size)
        assert max(last - first for first, last in places) <= batch_size + 1


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_what_one_sees(shards, plan, world_size):
    whole = _seen(Loader(shards, plan, "train", 8 * world_size, window=50))
    ranks = [
        list(Loader(shards, plan, "train", 8, rank=rank, world_size=world_size, window=50).batches())
        for rank in range(world_size)
    ]
    together = []
    for step in zip(*ranks, strict=True):
        for batch in sorted(step, key=lambda batch: batch.first):
            assert batch.first == len(together)
            together += zip(batch.image_ids, batch.mirrored.tolist(), strict=True)
    assert together == whole


@pytest.mark.parametrize("first_step", [0, 1, 7, 8, 30, 31])
def test_a_resumed_epoch_goes_on_where_it_was(shards, plan, first_step):
    loader = Loader(shards, plan, "train", 20, window=60, no_finding_share=0.5)
    whole = list(loader.batches(epoch=1))
    rest = list(loader.batches(epoch=1, first_step=first_step))
    assert len(whole) == len(loader) and len(rest) == max(len(loader) - first_step, 0)
    for one, other in zip(whole[first_step:], rest, strict=True):
        assert (one.step, one.first, one.image_ids) == (other.step, other.first, other.image_ids)
        assert torch.equal(one.pixels, other.pixels)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_share_of_the_healthy_is_drawn_anew_each_epoch(shards, plan, shuffle):
    loader = Loader(shards, plan, "train", 16, no_finding_share=0.25, shuffle=shuffle)
    whole = Loader(shards, plan, "train", 16)
    healthy = int((whole.labels.sum(axis=1) == 0).sum())
    epochs = [loader.order(epoch) for epoch in range(2)]
    for order in epochs:
        assert len(order) == len(set(order)) == loader.entries_an_epoch
        assert (loader.labels[order].sum(axis=1) == 0).sum() == round(0.25 * healthy)
        assert (loader.labels[order].sum(axis=1) > 0).sum() == len(whole.rows) - healthy
    assert set(epochs[0]) != set(epochs[1])


def test_a_batch_sees_all_over_the_data_set(write_prepared, tmp_path):
    write_prepared(tmp_path / "prepared", (100,) * 20, size=8)
    shards = PreparedShards(tmp_path / "prepared")
    plan = pd.DataFrame({"image_id": shards.image_ids.to_pylist(), "split": "train", "copies": 1, "mirrored": 0})
    loader = Loader(shards, plan, "train", 50, window=1000)
    groups = shards.groups[loader.rows[loader.order(0)]].reshape(-1, 50)
    assert min(len(set(batch)) for batch in groups) >= 9  # of the 10 groups of a window
    assert [len(set(window)) for window in groups.reshape(2, -1)] == [10, 10]  # and each is read once


def test_what_cannot_be_loaded_is_named(write_prepared, shards, plan, tmp_path):
    with pytest.raises(SourceError, match="lacks 2 images of the plan, nobody the first"):
        extra = pd.DataFrame({"image_id": ["nobody", "else"], "split": "train", "copies": 1, "mirrored": 0})
        Loader(shards, pd.concat([plan, extra]), "train", 4)
    with pytest.raises(SourceError, match="has 0 images of the split 'validation'"):
        Loader(shards, plan, "validation", 4)
    unreadable = pd.DataFrame({"image_id": list(shards.skipped), "split": "train", "copies": 1, "mirrored": 0})
    assert len(Loader(shards, pd.concat([plan, unreadable]), "train", 4)) == len(Loader(shards, plan, "train", 4))
    rows = write_prepared(tmp_path / "twice", (20, 0))
    second = tmp_path / "twice" / "data" / "shard-00001-of-00002.parquet"
    second.write_bytes((tmp_path / "twice" / "data" / "shard-00000-of-00002.parquet").read_bytes())
    with pytest.raises(SourceError, match=f"holds image {rows[0].image_id} twice"):
        Loader(PreparedShards(tmp_path / "twice"), plan, "train", 4)


def test_a_damaged_image_is_named(shards, plan, monkeypatch):
    def damaged(rows: np.ndarray) -> dict:
        return {int(row): b"no image" for row in rows}

    monkeypatch.setattr(shards, "read_images", damaged)
    with pytest.raises(SourceError, match=r"image image\d+ is damaged"):
        next(Loader(shards, plan, "train", 4).batches())


def test_stopping_early_leaves_no_threads(shards, plan):
    before = threading.active_count()
    batches = Loader(shards, plan, "train", 4, workers=3).batches()
    next(batches)
    batches.close()
    assert threading.active_count() == before


@pytest.mark.slow
def test_memory_stays_flat(write_prepared, run_python, tmp_path):
    """200,000 images of 17 KB took 230 MB more than 2,000; of tiny ones, as here, only what is known of them counts."""
    peaks = []
    for name, counts in (("few", (2_000,)), ("many", (2_500,) * 80)):
        write_prepared(tmp_path / name, counts, size=8)
        peaks.append(int(run_python("-c", STREAM_ALL, tmp_path / name).stdout))
    assert peaks[1] - peaks[0] < 150_000, peaks
