"""Parquet files of radiographs, on disk or elsewhere: prepared shards, timm/nih-chest-xray-14 and its like."""

import json
import re
from collections.abc import Collection, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from cxrfpn.data.schema import Box, Row, SourceError
from cxrfpn.data.shards import MANIFEST
from cxrfpn.data.sources.boxes import read_boxes
from cxrfpn.data.sources.columns import (
    OTHER_FOLD,
    SPLITS,
    checked,
    make_row,
    spelled,
    tabulate,
    warn_of_lone_images,
)

BOX_LISTS = ("boxes.csv", "BBox_List_2017.csv")
IMAGE_COLUMN = "image"
SUFFIX = ".parquet"
# Images in memory at once, and how much of a column is fetched at once: row groups of any size stream in little memory.
ROWS_A_BATCH = 16
BUFFER_BYTES = 8 << 20
# Footers and metadata come in many small reads; over a network it is their number that takes the time.
METADATA_THREADS = 8

_SPLIT_IN_NAME = re.compile(rf"(?:^|[/_-])({'|'.join(SPLITS)})(?=[-_./])")


class Files(Protocol):
    """Where the files lie: a folder, or a data set on the Hub."""

    name: str

    def names(self) -> list[str]:
        """Paths of all files, sorted."""

    def open(self, name: str) -> BinaryIO:
        """A seekable binary file."""


class LocalFiles:
    """The files of a folder, in any depth."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = str(folder)

    def names(self) -> list[str]:
        if not self.folder.is_dir():
            raise SourceError(f"{self.folder}: no such folder")
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    def open(self, name: str) -> BinaryIO:
        try:
            return (self.folder / name).open("rb")
        except OSError as error:
            raise SourceError(f"{self.folder / name}: cannot be read ({error.strerror})") from None


class ParquetSource:
    """A part is a file. Within a file, row groups that hold no wanted row are never read.

    Columns go by many names, and sex, view and labels may be strings or ClassLabels (read by name). A file whose name
    says train, validation or test tells the split of its rows, unless a column does. `boxes.csv`, or the NIH's list,
    gives the boxes where no column does.

    Args:
        name: the source's name.
        files: where the files are.
        without: fields that are not read, as in `open_source`. Without `split` every row is of the train split.
    """

    def __init__(self, name: str, files: Files, without: Collection[str] = ()) -> None:
        self.name, self.files, self.without = name, files, without

    def parts(self) -> list[str]:
        names = self.files.names()
        parts = [name for name in names if name.endswith(SUFFIX)]
        if not parts:
            raise SourceError(f"{self.files.name}: holds no parquet files")
        if MANIFEST in names and len(parts) < (promised := self._promised_shards()):
            raise SourceError(
                f"{self.files.name}: {promised - len(parts)} of {promised} shards are not there yet; "
                "run prepare.py again to go on"
            )
        return parts

    def _promised_shards(self) -> int:
        with self.files.open(MANIFEST) as file:
            content = file.read()
        try:
            return len(json.loads(content)["parts"])
        except (ValueError, KeyError, TypeError):
            raise SourceError(f"{self.files.name}/{MANIFEST}: was not written by prepare.py; remove it") from None

    def metadata(self) -> pd.DataFrame:
        parts = self.parts()
        with ThreadPoolExecutor(METADATA_THREADS) as pool:
            tables = pool.map(self.part_metadata, parts)
            bar = tqdm(tables, f"metadata of {self.name}", len(parts), unit=" files", delay=2)
            table = checked(pd.concat(list(bar)))
        if "patient_id" not in self.without:
            warn_of_lone_images(table, self.name)
        return table

    def part_metadata(self, part: str) -> pd.DataFrame:
        """METADATA_COLUMNS of one part, indexed by (part, row)."""
        with self._open(part, pre_buffer=True) as file:
            return self._read_metadata(file, part)

    def rows(self, part: str, wanted: Container[str] | None = None) -> Iterator[Row]:
        with self._open(part, pre_buffer=True) as file:
            records = list(self._read_metadata(file, part).itertuples(index=False))
            boxes = _box_column(file)
            footer = file.metadata
        keep = [wanted is None or record.image_id in wanted for record in records]
        # Buffered ahead, a row group would be in memory as a whole before its first image is out.
        with self._open(part, pre_buffer=False, buffer_size=BUFFER_BYTES, metadata=footer) as file:
            start = 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if any(keep[start:stop]):
                    for row, image in enumerate(_images(file, group), start=start):
                        if not keep[row]:
                            continue
                        found = boxes[row] if boxes else self._boxes.get(records[row].image_id, ())
                        # No image is an empty file: one radiograph that cannot be read, and no fault of the others.
                        yield make_row(records[row], image.as_py() or b"", found)
                start = stop

    @cached_property
    def _boxes(self) -> dict[str, tuple[Box, ...]]:
        name = next((name for name in BOX_LISTS if name in self.files.names()), None)
        if name is None:
            return {}
        with self.files.open(name) as file:
            return read_boxes(file, name)

    def _read_metadata(self, file: pq.ParquetFile, part: str) -> pd.DataFrame:
        raw = _raw_metadata(file, part, self.without)
        if "split" in self.without:
            return tabulate({**raw, "split": ["train"] * len(raw["image_id"])}, part)
        count = len(raw["image_id"])
        if "split" not in raw and (split := _split_in(part)):
            raw["split"] = [split] * count
        if "fold" not in raw and self._has_validation_files:
            raw["fold"] = [OTHER_FOLD] * count
        return tabulate(raw, part)

    @cached_property
    def _has_validation_files(self) -> bool:
        """Whether files of their own hold the validation set, so that the files of train hold none of it."""
        return any(_split_in(name) == "validation" for name in self.files.names() if name.endswith(SUFFIX))

    @contextmanager
    def _open(self, part: str, **options: Any) -> Iterator[pq.ParquetFile]:
        try:
            with self.files.open(part) as raw, pq.ParquetFile(raw, **options) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise SourceError(f"{self.files.name}/{part}: cannot be read as parquet ({reason})") from None


def _raw_metadata(file: pq.ParquetFile, part: str, without: Collection[str]) -> dict[str, list[Any]]:
    """Field -> values of a file, ClassLabels by their names."""
    schema = file.schema_arrow
    fields = spelled(schema.names, without)
    if "findings" not in fields and "findings" not in without:
        raise SourceError(f"{part}: has no column of findings; it has {', '.join(schema.names)}")
    if IMAGE_COLUMN not in schema.names:
        raise SourceError(f"{part}: has no column {IMAGE_COLUMN}; it has {', '.join(schema.names)}")
    is_plain = not pa.types.is_struct(schema.field(IMAGE_COLUMN).type)
    if "image_id" not in fields and is_plain:
        raise SourceError(f"{part}: has no column image_id; it has {', '.join(schema.names)}")
    paths = [] if "image_id" in fields else [f"{IMAGE_COLUMN}.path"]
    table = file.read([*fields.values(), *paths])
    classes = _class_names(schema)
    raw = {field: _named(table.column(column).to_pylist(), classes.get(column)) for field, column in fields.items()}
    if paths:
        raw["image_id"] = [image and image.get("path") for image in table.column(IMAGE_COLUMN).to_pylist()]
    return {**raw, "findings": [()] * len(raw["image_id"])} if "findings" in without else raw


def _split_in(part: str) -> str | None:
    """The split that a file's name tells, if it does."""
    match = _SPLIT_IN_NAME.search(part)
    return SPLITS[match[1]] if match else None


def _images(file: pq.ParquetFile, group: int) -> Iterator[pa.Scalar]:
    """The encoded images of a row group, one by one, never all of them in memory."""
    inside = pa.types.is_struct(file.schema_arrow.field(IMAGE_COLUMN).type)
    columns = [f"{IMAGE_COLUMN}.bytes" if inside else IMAGE_COLUMN]
    for batch in file.iter_batches(ROWS_A_BATCH, row_groups=[group], columns=columns, use_threads=False):
        column = batch.column(0)
        yield from column.field("bytes") if inside else column


def _box_column(file: pq.ParquetFile) -> list[tuple[Box, ...]] | None:
    if "boxes" not in file.schema_arrow.names:
        return None
    return [tuple(Box(**box) for box in boxes or ()) for boxes in file.read(["boxes"]).column(0).to_pylist()]


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> the names of its ClassLabel, which Hugging Face's datasets writes beside the schema."""
    content = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = content.get("info", {}).get("features", {})
    items = {column: _item(feature) for column, feature in features.items()}
    return {column: item["names"] for column, item in items.items() if "names" in item}


def _item(feature: Any) -> dict[str, Any]:
    """What a list holds, in the older or the newer way of writing it down; anything else as it is."""
    return feature[0] if isinstance(feature, list) else feature.get("feature", feature)


def _named(values: list[Any], names: list[str] | None) -> list[Any]:
    """ClassLabel ids, single or in lists, -> their names."""
    if names is None:
        return values

    def name(value: Any) -> Any:
        if isinstance(value, list):
            return [name(item) for item in value]
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else None

    return [name(value) for value in values]
