"""Pushing prepared shards to the Hub: what arrives is what lies here, and a refusal is one line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import List, Value, load_dataset

from cxrfpn.data.preparing import PrepareError
from cxrfpn.data.pushing import push_to_hub
from cxrfpn.data.schema import SourceError
from cxrfpn.data.shards import shard_paths, write_shard
from cxrfpn.data.sources import open_source
from tests.hubs.repositories import Answer
from tests.hubs.uploads import UploadHub

REPO = "someone/prepared"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[UploadHub]:
    with UploadHub(tmp_path / "hub") as loopback:
        loopback.take_over(monkeypatch)
        yield loopback


def test_the_shards_arrive_with_a_card_in_a_private_data_set(hub, write_prepared, tmp_path):
    write_prepared(tmp_path / "a", (20, 30))
    (tmp_path / "a" / "data" / "shard-00009.parquet.17.tmp").write_text("of a killed process")
    assert push_to_hub(tmp_path / "a", REPO) == f"{hub.endpoint}/datasets/{REPO}"
    assert hub.private == {("datasets", REPO)}
    arrived = hub.content("datasets", REPO)
    shards = {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "a" / "data").glob("*.parquet")}
    assert {name: content for name, content in arrived.items() if name.endswith(".parquet")} == shards
    assert set(arrived) - set(shards) == {"README.md", "prepare.json", ".gitattributes"}
    card = arrived["README.md"].decode()
    assert "# 50 prepared chest radiographs" in card and "synthetic" not in card


def test_load_dataset_opens_it_with_types_and_splits(hub, write_prepared, tmp_path):
    rows = write_prepared(tmp_path / "a", (4, 16, 20))  # the first four are of one patient, of the test split
    for shard, split in enumerate(("test", "train", "train")):
        chosen = [row for row in rows if row.split == split][16 * (shard == 2) :][: 4 if shard == 0 else 16]
        write_shard(shard_paths(tmp_path / "a", 3)[shard], [(row, 64) for row in chosen], {})
    push_to_hub(tmp_path / "a", REPO)
    loaded = load_dataset(REPO, streaming=True)
    assert set(loaded) == {"train", "test"}
    test = list(loaded["test"])
    assert [row["image_id"] for row in test] == [row.image_id for row in rows[:4]]
    assert (test[1]["image"].size, test[1]["findings"]) == ((16, 16), list(rows[1].findings))
    assert {row["split"] for row in loaded["train"]} == {"train"}
    assert loaded["train"].features["boxes"] == List({"finding": Value("string"), **dict.fromkeys(
        ("x", "y", "width", "height"), Value("float32"))})  # fmt: skip
    source = open_source(REPO)
    assert [row for part in source.parts() for row in source.rows(part)][:4] == rows[:4]


def test_shards_of_several_splits_are_one(hub, write_prepared, tmp_path):
    rows = write_prepared(tmp_path / "a", (20, 30))
    push_to_hub(tmp_path / "a", REPO)
    loaded = load_dataset(REPO, streaming=True)
    assert set(loaded) == {"all"} and sum(1 for _ in loaded["all"]) == 50
    source = open_source(REPO)
    assert [row for part in source.parts() for row in source.rows(part)] == rows
    card = hub.content("datasets", REPO)["README.md"].decode()
    assert f"| No Finding | {sum(not row.findings for row in rows)} |" in card


def test_what_is_private_already_is_pushed_to_again_and_what_is_public_is_not(hub, write_prepared, tmp_path):
    write_prepared(tmp_path / "a", (5, 5))
    there = Answer({"error": "You already created this repository", "url": push_to_hub(tmp_path / "a", REPO)}, 409)
    hub.route("POST", "/api/repos/create", lambda hub, request: there)
    push_to_hub(tmp_path / "a", REPO)
    hub.private.clear()
    hub.commits.clear()
    with pytest.raises(PrepareError) as caught:
        push_to_hub(tmp_path / "a", REPO)
    assert str(caught.value) == f"{REPO}: is public on the Hub; make it private there, or push to another name"
    assert not hub.commits


def test_phantoms_are_called_synthetic(hub, write_prepared, tmp_path):
    write_prepared(tmp_path / "a", (5,), source="phantom:5")
    push_to_hub(tmp_path / "a", REPO)
    assert b"all of them synthetic" in hub.content("datasets", REPO)["README.md"]


def test_a_refusal_is_one_line(hub, write_prepared, tmp_path):
    write_prepared(tmp_path / "a", (5, 5))
    hub.read_only = True
    for repo in (REPO, "not a/name/at all"):
        with pytest.raises(PrepareError, match="cannot be pushed to the Hub") as caught:
            push_to_hub(tmp_path / "a", repo)
        assert "\n" not in str(caught.value)
    next((tmp_path / "a" / "data").glob("*.parquet")).unlink()
    with pytest.raises(SourceError, match="run prepare.py again"):
        push_to_hub(tmp_path / "a", REPO)
