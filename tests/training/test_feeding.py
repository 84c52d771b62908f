"""Which images a run reads when it reads several sources."""

import shutil
import time

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.preparing import prepare
from cxrfpn.data.schema import SourceError
from cxrfpn.data.shards import PreparedShards
from cxrfpn.training.feeding import hide_inputs, one_ahead, open_feed, plan_further
from cxrfpn.training.recipe import FurtherSource, read_recipe

OWN = pd.DataFrame({"image_id": list("abc"), "patient_id": ["1", "2", "3"]})
PLAN = pd.DataFrame({"image_id": list("abc"), "split": ["train", "validation", "test"], "copies": 1, "mirrored": 0})
FURTHER = pd.DataFrame(
    [("k", "1", "train", 4), ("l", "2", "train", 4), ("m", "3", "train", None), ("n", "9", "train", None),
     ("o", "8", "test", None), ("p", "7", "train", 0), ("q", "6", None, None), ("r", "1", "train", 0)],
    columns=["image_id", "patient_id", "split", "fold"],
)  # fmt: skip


def test_no_patient_of_validation_or_test_is_trained_on_from_a_further_source():
    said = []
    planned = plan_further(FURTHER, OWN, PLAN, FurtherSource("x"), said.append)
    # l and m belong to patients of validation and test; o and p are held out by their own source. r is in the
    # validation fold, but its patient is trained on.
    assert planned["image_id"].tolist() == ["k", "n", "q", "r"] and set(planned["split"]) == {"train"}
    assert said[0].startswith("x: 4 images to train on, 0 to validate on, 0 in place of others, 4 left out")


def test_a_further_source_may_add_to_validation():
    planned = plan_further(FURTHER, OWN, PLAN, FurtherSource("x", share=0.5, validate=True), print)
    rows = planned.set_index("image_id")
    assert rows.index[rows["split"] == "validation"].tolist() == ["l", "p"]
    assert rows.loc[["l", "p"], "share"].eq(1).all() and rows.loc[["k", "n", "q", "r"], "share"].eq(0.5).all()


def test_a_further_source_may_not_replace_a_test_image():
    with pytest.raises(SourceError, match="x: holds image c, which the test split"):
        plan_further(FURTHER.assign(image_id=list("cklmnopq")), OWN, PLAN, FurtherSource("x"), print)


def test_an_image_of_a_further_source_replaces_that_of_the_same_id(write_recipe, chests, tmp_path):
    shards = PreparedShards(chests)
    alone = open_feed(read_recipe(write_recipe(tmp_path / "alone.yaml")), print)
    trained = alone.plan["image_id"][alone.plan["split"] == "train"]
    further = tmp_path / "further"
    shutil.copytree(chests, further)
    for shard in (further / "data").iterdir():  # what is not trained on is left out
        table = pq.read_table(shard)
        pq.write_table(table.filter(pc.is_in(table["image_id"], pa.array(trained))), shard)
    recipe = read_recipe(write_recipe(tmp_path / "both.yaml", more_sources=[{"source": f"parquet:{further}"}]))
    both = open_feed(recipe, print)
    assert len(both.shards) == len(shards) + len(trained)
    assert both.plan.drop(columns="share").equals(alone.plan)
    rows = both.loader(recipe, "train", 0, 1).rows
    assert (both.shards.folders[rows] == 1).all() and len(rows) == len(trained)


def test_an_epoch_shows_the_share_of_a_further_source(write_recipe, tmp_path):
    prepare(PhantomSource(60, seed=1), tmp_path / "more", size=64, processes=1)
    further = [{"source": f"parquet:{tmp_path / 'more'}", "share": 0.25}]
    recipe = read_recipe(write_recipe(tmp_path / "both.yaml", more_sources=further))
    feed = open_feed(recipe, print)
    loader = feed.loader(recipe, "train", 0, 1)
    added = set(feed.plan["image_id"][feed.plan["share"] == 0.25])
    epochs = [{name for batch in loader.batches(epoch) for name in batch.image_ids} for epoch in (0, 1)]
    # Images without a finding are drawn apart from the others, so that either share is rounded by itself.
    assert all(abs(len(added & epoch) - 0.25 * len(added)) <= 1 for epoch in epochs)
    assert added & epochs[0] != added & epochs[1]
    assert all(len(epoch - added) == (feed.plan["split"] == "train").sum() - len(added) for epoch in epochs)


def test_a_run_trains_on_all_its_sources_and_validates_on_its_own(write_recipe, tmp_path):
    prepare(PhantomSource(60, seed=1), tmp_path / "more", size=64, processes=1)
    alone = open_feed(read_recipe(write_recipe(tmp_path / "alone.yaml")), print)
    further = [{"source": f"parquet:{tmp_path / 'more'}"}]
    recipe = read_recipe(write_recipe(tmp_path / "both.yaml", more_sources=further))
    both = open_feed(recipe, print)
    added = both.plan[~both.plan["image_id"].isin(alone.plan["image_id"])]
    assert len(added) > 30 and set(added["split"]) == {"train"}
    assert both.plan.drop(added.index).drop(columns="share").equals(alone.plan)
    seen = {name for batch in both.loader(recipe, "train", 0, 1).batches() for name in batch.image_ids}
    assert set(added["image_id"]) < seen
    assert both.loader(recipe, "validation", 0, 1).entries_an_epoch == (alone.plan["split"] == "validation").sum()


def test_a_place_in_an_epoch_has_the_same_inputs_hidden_in_any_batch():
    patients = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    whole = hide_inputs(patients, 0.4, seed=3, epoch=7, first=100)
    assert whole.isnan().float().mean().item() == pytest.approx(0.4, abs=0.12)
    for first, count in ((0, 10), (13, 1), (20, 30)):
        part = hide_inputs(patients[first : first + count], 0.4, seed=3, epoch=7, first=100 + first)
        torch.testing.assert_close(part, whole[first : first + count], equal_nan=True, rtol=0, atol=0)


def test_one_item_is_made_while_the_one_before_it_is_used():
    made: list[int] = []

    def items():
        for number in range(4):
            made.append(number)
            yield number
        raise SourceError("the fifth cannot be read")

    taken = one_ahead(items())
    assert next(taken) == 0
    assert next(taken) == 1
    wait_until(lambda: made == [0, 1, 2])  # the third, and not the fourth
    assert [next(taken), next(taken)] == [2, 3]
    with pytest.raises(SourceError, match="fifth"):
        next(taken)


def wait_until(holds) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_columns_of_other_names_without_a_local_copy(chests, write_recipe, tmp_path):
    for number, shard in enumerate(sorted((chests / "data").glob("*.parquet"))):
        table = pq.read_table(shard).replace_schema_metadata(None)
        names = {"findings": "dx", "image": "scan"}
        (tmp_path / "renamed").mkdir(exist_ok=True)
        table = table.rename_columns([names.get(name, name) for name in table.column_names])
        pq.write_table(table, tmp_path / "renamed" / f"{number}.parquet")
    changes = {"source": f"parquet:{tmp_path / 'renamed'}", "prepared": "none", "stored_size": 64}
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", columns={"findings": "dx", "image": "scan"}, **changes))
    feed = open_feed(recipe, print)
    assert len(feed.shards) == 150 and feed.shards.labels.sum() == PreparedShards(chests).labels.sum()
    assert len(next(feed.loader(recipe, "train", 0, 1).batches())) == 16
