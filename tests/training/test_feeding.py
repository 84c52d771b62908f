"""Which images a run reads when it reads several sources."""

import time

import pandas as pd
import pytest
import torch

from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.preparing import prepare
from cxrfpn.data.schema import SourceError
from cxrfpn.training.feeding import hide_inputs, one_ahead, open_feed, plan_more
from cxrfpn.training.recipe import read_recipe


def test_of_further_sources_nobody_is_shown_who_is_judged():
    own = pd.DataFrame({"image_id": list("abc"), "patient_id": ["1", "2", "3"]})
    plan = pd.DataFrame({"image_id": list("abc"), "split": ["train", "validation", "test"]})
    more = pd.DataFrame(
        [("k", "1", "train", 4), ("l", "2", "train", 4), ("m", "3", "train", None), ("n", "9", "train", None),
         ("o", "8", "test", None), ("p", "7", "train", 0), ("q", "6", None, None)],
        columns=["image_id", "patient_id", "split", "fold"],
    )  # fmt: skip
    said = []
    planned = plan_more(more, own, plan, said.append)
    # l and m are of patients that are judged; o and p are held out where they come from.
    assert planned["image_id"].tolist() == ["k", "n", "q"] and set(planned["split"]) == {"train"}
    assert said == ["further images to train on: 3 (4 others are held out, or of patients that are)"]


def test_a_run_trains_on_all_its_sources_and_is_judged_by_the_first(write_recipe, tmp_path):
    prepare(PhantomSource(60, seed=1), tmp_path / "more", size=64, processes=1)
    alone = open_feed(read_recipe(write_recipe(tmp_path / "alone.yaml")), print)
    recipe = read_recipe(write_recipe(tmp_path / "both.yaml", more_sources=[f"parquet:{tmp_path / 'more'}"]))
    both = open_feed(recipe, print)
    added = both.plan[~both.plan["image_id"].isin(alone.plan["image_id"])]
    assert len(added) > 30 and set(added["split"]) == {"train"}
    assert both.plan.drop(added.index).equals(alone.plan)
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
