"""Prepared shards: what was written comes back, by us and by Hugging Face's datasets, and damage is named."""

import os

import numpy as np
import pytest
import torch
from datasets import load_dataset

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import METADATA_COLUMNS, SourceError
from cxrfpn.data.shards import PreparedShards, shard_paths
from cxrfpn.files import write_atomically
from patient_cxrfpn import Patient

COUNTS = (250, 0, 130, 1)


@pytest.fixture(scope="module")
def prepared(write_prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "prepared"
    return folder, write_prepared(folder, COUNTS)


def test_what_was_written_comes_back_row_by_row(prepared):
    folder, rows = prepared
    shards = PreparedShards(folder)
    assert len(shards) == len(rows) == sum(COUNTS) and shards.size == 16
    assert shards.image_ids.to_pylist() == [row.image_id for row in rows]
    assert shards.patient_ids.to_pylist() == [row.patient_id for row in rows]
    labels = [[float(name in row.findings) for name in FINDINGS] for row in rows]
    assert torch.equal(torch.from_numpy(shards.labels), torch.tensor(labels))
    expected = torch.tensor([Patient(row.age, row.sex, row.view_position).encode() for row in rows])
    assert torch.equal(torch.from_numpy(shards.patients).nan_to_num(-1), expected.nan_to_num(-1))
    assert shards.skipped == {f"unreadable{last}": "the file is empty" for last in (250, 380, 381)}
    assert np.bincount(shards.groups).tolist() == [100, 100, 50, 0, 100, 30, 1]


def test_the_metadata_is_what_a_plan_is_made_from(prepared):
    folder, rows = prepared
    table = PreparedShards(folder).metadata()
    assert tuple(table.columns) == METADATA_COLUMNS
    for column in METADATA_COLUMNS:
        values = table[column].tolist()
        known = [None if isinstance(value, float) and np.isnan(value) else value for value in values]
        assert known == [getattr(row, column) for row in rows], column


def test_images_come_from_where_they_lie(prepared):
    folder, rows = prepared
    wanted = np.array([380, 3, 3, 260, 99, 100])
    images = PreparedShards(folder).read_images(wanted)
    assert {row: image.to_pybytes() for row, image in images.items()} == {row: rows[row].image for row in wanted}
    assert PreparedShards(folder).read_images(np.array([], int)) == {}


def test_hugging_face_datasets_reads_the_shards_with_their_types(prepared, tmp_path):
    folder, rows = prepared
    files = [str(path) for path in shard_paths(folder, len(COUNTS))]
    dataset = load_dataset("parquet", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path))
    for record, row in zip(dataset.take(5), rows, strict=False):
        assert record["image"].size == (16, 16) and record["image_id"] == row.image_id
        assert tuple(record["findings"]) == row.findings and record["fold"] == row.fold
        assert [tuple(box.values()) for box in record["boxes"]] == [
            (box.finding, box.x, box.y, box.width, box.height) for box in row.boxes
        ]


def test_what_is_missing_or_damaged_is_named(write_prepared, tmp_path):
    with pytest.raises(SourceError, match="holds no prepare.json; make prepared shards"):
        PreparedShards(tmp_path)
    write_prepared(tmp_path / "a", (20, 20))
    first, second = shard_paths(tmp_path / "a", 2)
    shards = PreparedShards(tmp_path / "a")
    second.write_bytes(second.read_bytes()[:1000])
    with pytest.raises(SourceError, match="shard-00001-of-00002.parquet: cannot be read .*run prepare.py again"):
        PreparedShards(tmp_path / "a")
    with pytest.raises(SourceError, match="shard-00001"):
        shards.read_images(np.array([25]))
    first.unlink()
    with pytest.raises(SourceError, match="1 of 2 shards are not there yet, shard-00000-of-00002.parquet the first"):
        PreparedShards(tmp_path / "a")
    for content in ("{", "[]", '{"size": 256}'):
        (tmp_path / "a" / "prepare.json").write_text(content)
        with pytest.raises(SourceError, match="prepare it again"):
            PreparedShards(tmp_path / "a")


def test_several_folders_are_read_as_one(write_prepared, tmp_path):
    first = write_prepared(tmp_path / "a", (20, 30))
    write_prepared(tmp_path / "b", (150,))
    shards = PreparedShards(tmp_path / "a", tmp_path / "b")
    assert len(shards) == 200 and shards.folders.tolist() == [0] * 50 + [1] * 150
    assert shards.groups.tolist() == [0] * 20 + [1] * 30 + [2] * 100 + [3] * 50
    images = shards.read_images(np.array([3, 53, 199]))
    assert images[3].to_pybytes() == first[3].image == images[53].to_pybytes()  # both folders begin with the same rows
    write_prepared(tmp_path / "c", (20,), size=32)
    with pytest.raises(SourceError, match="/c: holds images of 32 pixels, .*/a of 16"):
        PreparedShards(tmp_path / "a", tmp_path / "c")


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "table"
    write_atomically(path, b"first")

    def refuse(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"second")
    assert [file.name for file in tmp_path.iterdir()] == ["table"] and path.read_bytes() == b"first"
