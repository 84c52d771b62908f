"""Where parquet files lie, in a folder or on the Hub, and what columns they have."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq
from datasets import ClassLabel, DownloadConfig, Features, IterableDataset, load_dataset
from datasets.utils.file_utils import xopen

from cxrfpn.data.schema import SourceError
from cxrfpn.data.sources.hub import be_patient

SUFFIX = ".parquet"
# What is streamed is not kept, but `datasets` would lock a folder on disk for it, if this address were of one. And of a
# file on the Hub, it would fetch 5 MB more with every read.
SMALL_BLOCKS = {"hf": {"block_size": 1 << 16}}
NOTHING_MORE = {"cache_dir": "memory://", "storage_options": SMALL_BLOCKS}


@dataclass(frozen=True)
class Part:
    """One parquet file: its address, the features of its columns, the split that `datasets` puts it in, if any."""

    url: str
    features: Features
    split: str | None = None

    def stream(self, columns: Sequence[str], **options: object) -> IterableDataset:
        """Stream some columns of the file; the others are never read. Images stay encoded.

        Args:
            options: of `datasets`' parquet reader (batch_size, filters, fragment_scan_options).
        """
        be_patient()  # in every process that the source travels to
        features = Features({column: self.features[column] for column in columns})
        files = {"train": [glob.escape(self.url)]}
        options = {"columns": list(columns), "features": features, **NOTHING_MORE, **options}
        stream = load_dataset("parquet", data_files=files, split="train", streaming=True, **options)
        return stream.with_format("arrow")


@dataclass(frozen=True)
class Place:
    """A set of files: what errors call it, the address that theirs start with, all their names, the parquet files.

    A damaged parquet file is no part: `broken` says what is wrong with it, once somebody asks for it.
    """

    label: str
    base: str
    names: tuple[str, ...]
    parts: dict[str, Part]
    broken: dict[str, str] = field(default_factory=dict)

    def part(self, name: str) -> Part:
        """Return a parquet file by its name.

        Raises:
            SourceError: the file is damaged.
        """
        if name in self.broken:
            raise SourceError(self.broken[name])
        return self.parts[name]

    def open(self, name: str) -> BinaryIO:
        """Open any of the files."""
        be_patient()
        return xopen(f"{self.base}/{name}", "rb", download_config=DownloadConfig(storage_options=SMALL_BLOCKS))


def local_place(folder: Path) -> Place:
    """Find the parquet files of a folder, at any depth.

    Raises:
        SourceError: no such folder.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder")
    names = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    parts, broken = {}, {}
    for name in (name for name in names if name.endswith(SUFFIX)):
        try:
            features = Features.from_arrow_schema(pq.read_schema(folder / name))
        except Exception as error:  # pyarrow and datasets raise many kinds for a damaged schema and its JSON
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            broken[name] = f"{folder / name}: cannot be read as parquet ({reason})"
        else:
            parts[name] = Part(f"{folder.absolute().as_posix()}/{name}", features)
    return Place(str(folder), folder.as_posix(), names, parts, broken)


def named(values: list[object], feature: object) -> list[object]:
    """Replace ClassLabel ids, single or in lists, by their names; other columns stay as they are."""
    label = getattr(feature, "feature", feature)
    if not isinstance(label, ClassLabel):
        return values

    def name(value: object) -> object:
        if isinstance(value, list):
            return [name(item) for item in value]
        return label.names[value] if isinstance(value, int) and 0 <= value < len(label.names) else None

    return [name(value) for value in values]
