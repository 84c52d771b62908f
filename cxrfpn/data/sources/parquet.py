"""Parquet files of radiographs, streamed by `datasets`: prepared shards, timm/nih-chest-xray-14 and its like."""

import json
import re
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, Value
from tqdm import tqdm

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import UNKNOWN_COLUMN, Box, Row, SourceError
from cxrfpn.data.shards import MANIFEST
from cxrfpn.data.sources.boxes import read_boxes
from cxrfpn.data.sources.columns import (
    OTHER_FOLD,
    SPLITS,
    RawColumns,
    checked,
    make_row,
    spelled,
    tabulate,
    warn_of_lone_images,
)
from cxrfpn.data.sources.hub import reason_of
from cxrfpn.data.sources.labels import finding_columns, marked_findings
from cxrfpn.data.sources.places import Part, Place, named

BOX_LISTS = ("boxes.csv", "BBox_List_2017.csv")
# How many rows are handed on at once: of metadata, and of images.
ROWS_AT_ONCE, IMAGES_AT_ONCE = 10_000, 16
# How much of a column of images is fetched at once: row groups of any size stream in little memory.
BUFFER_BYTES = 8 << 20
# Footers and metadata come in many small reads; over a network it is their number that takes the time.
METADATA_THREADS = 8

_SPLIT_IN_NAME = re.compile(rf"(?:^|[/_-])({'|'.join(SPLITS)})(?=[-_./])")


class ParquetSource:
    """A part is a file. Row groups without a wanted row are not read.

    Columns go by many names, and sex, view and labels may be strings or ClassLabels (read by name). A file whose name
    says train, validation or test gives the split of its rows, unless a column does. `boxes.csv`, or the NIH's list,
    gives the boxes where no column does.

    Args:
        name: the source's name.
        find: finds the files; called once, when they are first needed.
        without: fields that are not read, as in `open_source`. Without `split` every row is of the train split.
        columns: field -> column, as in `open_source`.
        findings: the names that findings may have.
    """

    def __init__(
        self,
        name: str,
        find: Callable[[], Place],
        without: Collection[str] = (),
        columns: Mapping[str, str] | None = None,
        findings: Sequence[str] = FINDINGS,
    ) -> None:
        self.name, self._find, self.without, self.columns = name, find, without, columns or {}
        self.findings = findings

    def parts(self) -> list[str]:
        """See `Source.parts`."""
        place = self._place
        parts = sorted([*place.parts, *place.broken])
        if not parts:
            raise SourceError(f"{place.label}: holds no parquet files")
        if MANIFEST in place.names and len(parts) < (promised := self._promised_shards()):
            raise SourceError(
                f"{place.label}: {promised - len(parts)} of {promised} shards are not there yet; "
                "run prepare.py again to continue"
            )
        return parts

    def metadata(self) -> pd.DataFrame:
        """See `Source.metadata`."""
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
        with self._one_line_errors(part):
            return tabulate(self._raw(part), part, findings=self.findings)

    def rows(self, part: str, wanted: Container[str] | None = None) -> Iterator[Row]:
        """See `Source.rows`."""
        with self._one_line_errors(part):
            raw = self._raw(part)
            records = list(tabulate(raw, part, findings=self.findings).itertuples(index=False))
            keep = [row for row, record in enumerate(records) if wanted is None or record.image_id in wanted]
            boxes = raw.get("boxes")
            for row, image in self._images(part, keep):
                found = self._boxes.get(records[row].image_id, ()) if boxes is None else _boxes_in(boxes[row])
                # No image is an empty file: one radiograph that cannot be read, and no fault of the others.
                yield make_row(records[row], image or b"", found)

    @cached_property
    def _place(self) -> Place:
        return self._find()

    @cached_property
    def _boxes(self) -> dict[str, tuple[Box, ...]]:
        name = next((name for name in BOX_LISTS if name in self._place.names), None)
        if name is None:
            return {}
        with self._place.open(name) as file:
            return read_boxes(file, name)

    @cached_property
    def _has_validation_files(self) -> bool:
        """Whether files of their own hold the validation set, so that the files of train hold none of it."""
        return any(self._split_of(part) == "validation" for part in self._place.parts)

    def _promised_shards(self) -> int:
        with self._place.open(MANIFEST) as file:
            content = file.read()
        try:
            return len(json.loads(content)["parts"])
        except (ValueError, KeyError, TypeError):
            raise SourceError(f"{self._place.label}/{MANIFEST}: was not written by prepare.py; remove it") from None

    def _split_of(self, part: str) -> str | None:
        """Return the split that `datasets` puts a file in, or that its name tells."""
        match = _SPLIT_IN_NAME.search(part)
        return self._place.part(part).split or (SPLITS[match[1]] if match else None)

    def _raw(self, part: str) -> RawColumns:
        """Field -> values of a file as they came, ClassLabels by their names."""
        file = self._place.part(part)
        fields = self._fields(part)
        marks = (
            {} if "findings" in fields or "findings" in self.without else finding_columns(file.features, self.findings)
        )
        if not {"findings"} & {*fields, *self.without} and not marks:
            raise SourceError(f"{part}: has no column of findings; it has {', '.join(file.features)}")
        further = [UNKNOWN_COLUMN] if UNKNOWN_COLUMN in file.features and "findings" not in self.without else []
        table = _read(file, [*fields.values(), *marks.values(), *further])
        raw: RawColumns = {
            field: named(table.column(at).to_pylist(), file.features[at]) for field, at in fields.items()
        }
        if "image_id" not in raw:
            raw["image_id"] = self._image_paths(part)
        raw |= {name: table.column(name).to_pylist() for name in further}
        if marks:
            columns = {at: table.column(at).to_pylist() for at in marks.values()}
            raw["findings"], raw[UNKNOWN_COLUMN] = marked_findings(columns, marks, part)
        return self._with_defaults(raw, part)

    def _with_defaults(self, raw: RawColumns, part: str) -> RawColumns:
        count = len(raw["image_id"])
        if "findings" in self.without:
            raw["findings"] = [()] * count
        if "split" in self.without:
            raw["split"] = ["train"] * count
        if "split" in self.without or self.columns.get("split") == "":
            return raw
        if "split" not in raw and (split := self._split_of(part)):
            raw["split"] = [split] * count
        if "fold" not in raw and self._has_validation_files:
            raw["fold"] = [OTHER_FOLD] * count
        return raw

    def _fields(self, part: str) -> dict[str, str]:
        """Field -> column of a file, and `boxes` where it has them."""
        columns = self._place.part(part).features
        boxes = {"boxes": "boxes"} if "boxes" in columns else {}
        return {**spelled(columns, self.without, self.columns), **boxes}

    def _image_column(self, part: str) -> str:
        features = self._place.part(part).features
        pictures = (column for column, feature in features.items() if isinstance(feature, Image))
        column = self.columns.get("image") or ("image" if "image" in features else next(pictures, "image"))
        if column not in features:
            raise SourceError(f"{part}: has no column {column}; it has {', '.join(features)}")
        return column

    def _image_paths(self, part: str) -> list[str | None]:
        """Return the paths beside the images of a file, without the images: what `datasets` cannot read apart."""
        column, features = self._image_column(part), self._place.part(part).features
        if isinstance(features[column], Value):
            raise SourceError(f"{part}: has no column image_id; it has {', '.join(features)}")
        with self._place.open(part) as raw, pq.ParquetFile(raw, pre_buffer=True) as file:
            images = file.read([f"{column}.path"]).column(column).to_pylist()
        return [image and image["path"] for image in images]

    def _images(self, part: str, keep: list[int]) -> Iterator[tuple[int, bytes | None]]:
        """Row -> encoded image of the rows to keep; row groups without one are not read.

        `datasets` would read ahead of a slow reader until a gigabyte waits, so images are drawn from pyarrow itself.
        """
        if not keep:
            return
        column = self._image_column(part)
        is_plain = isinstance(self._place.part(part).features[column], Value)
        columns, kept = [column if is_plain else f"{column}.bytes"], set(keep)
        with self._place.open(part) as raw, pq.ParquetFile(raw, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
            start = 0
            for group in range(file.num_row_groups):
                rows = range(start, start + file.metadata.row_group(group).num_rows)
                start = rows.stop
                if kept.isdisjoint(rows):
                    continue
                batches = file.iter_batches(IMAGES_AT_ONCE, row_groups=[group], columns=columns, use_threads=False)
                images = (image for batch in batches for image in batch.column(0))
                for row, image in zip(rows, images, strict=True):
                    if row in kept:
                        value = image.as_py()
                        yield row, value["bytes"] if isinstance(value, dict) else value

    @contextmanager
    def _one_line_errors(self, part: str) -> Iterator[None]:
        try:
            yield
        except SourceError:
            raise
        except Exception as error:  # of four libraries, each with its own
            raise SourceError(f"{self._place.label}/{part}: {reason_of(error)}") from None


def _read(file: Part, columns: list[str]) -> pa.Table:
    # Left to itself, the reader takes the rows of the first row group, and fails where these are none.
    batches = list(file.stream(columns, batch_size=ROWS_AT_ONCE).iter(ROWS_AT_ONCE)) if columns else []
    return pa.concat_tables(batches) if batches else Features(file.features).arrow_schema.empty_table()


def _boxes_in(boxes: list[dict[str, Any]] | None) -> tuple[Box, ...]:
    return tuple(Box(**box) for box in boxes or ())
