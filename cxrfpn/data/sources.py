"""Sources of labelled radiographs, all giving the one schema."""

import glob
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from configuration_cxrfpn import FINDINGS, MAX_AGE_YEARS
from cxrfpn.data.schema import Row, SourceError

COLUMNS = ["image", "label_names", "image_id", "fold", "patient_id", "patient_age", "patient_sex", "view_position"]
VALIDATION_FOLD = 0
SPLITS = ("train", "validation", "test")


def read_parquet(folder: str | Path, split: str) -> Iterator[Row]:
    """Read a folder of `data/{train,test}-*.parquet` in the schema of timm/nih-chest-xray-14.

    Args:
        folder: the folder that holds `data/`.
        split: "train", "validation" (fold 0 of train) or "test".

    Raises:
        SourceError: for another split, a folder without shards, a column or a finding that is not known.
    """
    if split not in SPLITS:
        raise SourceError(f"split {split!r} is none of {', '.join(SPLITS)}")
    stem = "test" if split == "test" else "train"
    shards = sorted(glob.glob(str(Path(folder) / "data" / f"{stem}-*.parquet")))
    if not shards:
        raise SourceError(f"{folder}: holds no data/{stem}-*.parquet")
    for shard in shards:
        file = pq.ParquetFile(shard)
        if missing := [column for column in COLUMNS if column not in file.schema_arrow.names]:
            raise SourceError(f"{shard}: lacks the column {', '.join(missing)}")
        for batch in file.iter_batches(batch_size=100, columns=COLUMNS):
            for record in batch.to_pylist():
                if split == "test" or (record["fold"] == VALIDATION_FOLD) == (split == "validation"):
                    yield _row(record, shard)


def _row(record: dict[str, Any], shard: str) -> Row:
    findings = tuple(record["label_names"])
    if unknown := [name for name in findings if name not in FINDINGS]:
        raise SourceError(f"{shard}: image {record['image_id']} has the unknown finding {', '.join(unknown)}")
    age = record["patient_age"]
    known_age = age is not None and not math.isnan(age) and 0 <= age <= MAX_AGE_YEARS
    return Row(
        image=record["image"]["bytes"],
        image_id=record["image_id"],
        patient_id=str(record["patient_id"]),
        age=float(age) if known_age else None,
        sex=record["patient_sex"],
        view_position=record["view_position"],
        findings=findings,
    )
