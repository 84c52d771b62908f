"""Any other data set that `datasets` opens: an image folder, JSON, one saved to disk, further formats on the Hub."""

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

import pandas as pd
from datasets import Dataset, Image, IterableDataset, load_dataset, load_from_disk
from datasets.utils.file_utils import xopen

from cxrfpn.data.schema import UNKNOWN_COLUMN, Row, SourceError
from cxrfpn.data.sources.columns import (
    SPLITS,
    RawColumns,
    checked,
    letters,
    make_row,
    spelled,
    tabulate,
    warn_of_lone_images,
)
from cxrfpn.data.sources.csv_table import PATH_SPELLINGS
from cxrfpn.data.sources.files import in_runs, read_file
from cxrfpn.data.sources.hub import be_patient, reason_of
from cxrfpn.data.sources.labels import finding_columns, marked_findings
from cxrfpn.data.sources.places import NOTHING_MORE, named

ROWS_A_SHARD = 1000


def open_locally(kind: str, where: Path) -> Mapping[str, IterableDataset]:
    """Open what lies on this disk: split -> its rows.

    Args:
        kind: "imagefolder", "json", or "disk" for what `save_to_disk` wrote.
    """
    if not where.exists():
        raise SourceError(f"{kind}:{where}: no such file or folder")
    if kind == "disk":
        saved = load_from_disk(str(where))
        splits = {"train": saved} if isinstance(saved, Dataset) else saved
        return {
            split: rows.to_iterable_dataset(num_shards=max(1, len(rows) // ROWS_A_SHARD))
            for split, rows in splits.items()
        }
    files = {"data_dir": str(where)} if kind == "imagefolder" else {"data_files": str(where)}
    return load_dataset(kind, streaming=True, **files, **NOTHING_MORE)


class _Place(TypedDict):
    """Where an image lies: its part, its path if it has one, and whether its bytes are in the row."""

    part: str
    path: str | None
    inside: bool


class StreamedSource:
    """Rows as `datasets` gives them. A part is a shard where images lie in the rows, else a run of image files.

    Every row is read once for the metadata, its image included where that lies in the row.

    Args:
        name: the source's name.
        streams: gives split -> its rows; called once, when they are first needed.
        base: the folder or address that relative paths of images start from, and that those of the Hub never leave.
        without, columns: as in `open_source`.
    """

    def __init__(
        self,
        name: str,
        streams: Callable[[], Mapping[str, IterableDataset]],
        base: str,
        without: Collection[str] = (),
        columns: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self._open, self.base, self.without, self.columns = name, streams, base, without, columns or {}

    def metadata(self) -> pd.DataFrame:
        """See `Source.metadata`."""
        if "patient_id" not in self.without:
            warn_of_lone_images(self._table, self.name)
        return self._table.copy()

    def parts(self) -> list[str]:
        """See `Source.parts`."""
        return list(self._runs or self._shards)

    def rows(self, part: str, wanted: Container[str] | None = None) -> Iterator[Row]:
        """See `Source.rows`."""
        within = self._runs[part] if self._runs else None
        rows = self._places.index[self._places["part"] == part] if within is None else range(len(self._table))
        records = [record for record in self._table.loc[rows].itertuples(index=False)
                   if within is None or record.image_id in within]  # fmt: skip
        images = self._embedded(part) if within is None else (within[record.image_id] for record in records)
        for record, image in zip(records, images, strict=True):
            if wanted is None or record.image_id in wanted:
                data, error = self._content(image) if isinstance(image, str) else (image or b"", None)
                yield make_row(record, data, error=error)

    @cached_property
    def _streams(self) -> Mapping[str, IterableDataset]:
        try:
            return self._open()
        except SourceError:
            raise
        except Exception as error:  # of several libraries, each with its own
            raise SourceError(f"{self.name}: {reason_of(error)}") from None

    @cached_property
    def _shards(self) -> dict[str, IterableDataset]:
        """Part -> its rows, images encoded as they came."""
        # Decoding is switched off first: of a shard, it no longer can be.
        encoded = {split: rows.decode(False) if rows.features else rows for split, rows in self._streams.items()}
        return {
            f"{split}-{index:05}-of-{rows.num_shards:05}": rows.shard(rows.num_shards, index)
            for split, rows in encoded.items()
            for index in range(rows.num_shards)
        }

    @cached_property
    def _scanned(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """METADATA_COLUMNS of every row; and its part, and the path of its image unless that lies in the row."""
        kept: list[dict[str, Any]] = []
        places: list[_Place] = []
        for part in self._shards:
            for row in self._rows_of(part):
                image = row.pop(self._image_column(row))
                path = image if isinstance(image, str) else image["path"] if isinstance(image, dict) else None
                inside = isinstance(image, bytes) or (isinstance(image, dict) and image["bytes"] is not None)
                places.append({"part": part, "path": path, "inside": inside})
                kept.append(row)
        if not kept:
            raise SourceError(f"{self.name}: holds no rows")
        return checked(tabulate(self._raw(kept, places), self.name)), pd.DataFrame(places)

    @property
    def _table(self) -> pd.DataFrame:
        return self._scanned[0]

    @property
    def _places(self) -> pd.DataFrame:
        return self._scanned[1]

    @cached_property
    def _runs(self) -> dict[str, dict[str, str]]:
        """Part -> image id -> path, where images are files; empty where they lie in the rows."""
        if self._places["inside"].any():
            return {}
        return in_runs(dict(zip(self._table["image_id"], map(self._absolute, self._places["path"]), strict=True)))

    def _raw(self, rows: list[dict[str, Any]], places: list[_Place]) -> RawColumns:
        """Field -> values, as `tabulate` takes them."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        features = next(iter(self._streams.values())).features or {}
        table = {name: named([row.get(name) for row in rows], features.get(name)) for name in columns}
        raw: RawColumns = {
            field: table[column] for field, column in spelled(columns, self.without, self.columns).items()
        }
        raw.setdefault("image_id", [self._id(row, place) for row, place in enumerate(places)])
        if "findings" in self.without:
            raw["findings"] = [()] * len(rows)
        elif "findings" not in raw:
            if not (marks := finding_columns(columns)):
                raise SourceError(f"{self.name}: has no column of findings; it has {', '.join(columns)}")
            raw["findings"], raw[UNKNOWN_COLUMN] = marked_findings(table, marks, self.name)
        is_read = "split" not in self.without and self.columns.get("split") != ""
        if is_read and "split" not in raw and list(self._streams) != ["train"]:
            splits = [place["part"].rsplit("-", 3)[0] for place in places]
            raw["split"] = [split if split in SPLITS else None for split in splits]
        return raw

    def _id(self, row: int, place: _Place) -> str:
        path = (place["path"] or "").removeprefix(f"{self.base}/")
        return path or f"{place['part']}/{row:06}"

    def _image_column(self, row: Iterable[str]) -> str:
        features = next(iter(self._streams.values())).features or {}
        pictures = [column for column, feature in features.items() if isinstance(feature, Image)]
        paths = [column for spelling in PATH_SPELLINGS for column in row if letters(column) == spelling]
        column = self.columns.get("image") or next(iter(pictures + paths), "image")
        if column not in row:
            raise SourceError(f"{self.name}: has no column {column} of images; it has {', '.join(row)}")
        return column

    def _embedded(self, part: str) -> Iterator[bytes | str | None]:
        for row in self._rows_of(part):
            image = row[self._image_column(row)]
            yield image if not isinstance(image, dict) else image["bytes"] or image["path"]

    def _rows_of(self, part: str) -> Iterator[dict[str, Any]]:
        be_patient()
        try:
            yield from map(dict, self._shards[part])
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(f"{self.name}, {part}: {reason_of(error)}") from None

    def _absolute(self, path: str) -> str:
        """Where an image lies; of a data set on the Hub, nowhere else than in it."""
        on_the_hub = self.base.startswith("hf://")
        if on_the_hub and (".." in PurePosixPath(path).parts or ("://" in path and self.base not in path)):
            raise SourceError(f"{self.name}: the path {path} leads out of the data set")
        if path.startswith(self.base) or "://" in path or (not on_the_hub and Path(path).is_absolute()):
            return path
        return f"{self.base}/{path.lstrip('/')}"

    def _content(self, path: str) -> tuple[bytes, str | None]:
        if "://" not in path:
            return read_file(Path(self._absolute(path)))
        be_patient()
        try:
            with xopen(path, "rb") as file:
                return file.read(), None
        except Exception as error:
            raise SourceError(f"{path}: {reason_of(error)}") from None
