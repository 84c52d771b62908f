"""Sources of labelled radiographs, all giving the one schema."""

import re
from collections.abc import Callable, Collection
from pathlib import Path

from cxrfpn.data.schema import METADATA_COLUMNS, UNLABELLED, Source, SourceError
from cxrfpn.data.sources.parquet import LocalFiles, ParquetSource

__all__ = ["DEFAULT_SOURCE", "SourceError", "open_source"]

# NIH ChestX-ray14 in the official split, and the revision that everything here was written for.
DEFAULT_SOURCE = "timm/nih-chest-xray-14"
PINNED_REVISIONS = {DEFAULT_SOURCE: "c1bf579641b3256b4d49924436984b82bee5834d"}

_ON_THE_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def open_source(name: str = DEFAULT_SOURCE, without: Collection[str] = ()) -> Source:
    """A source by its name; nothing is read yet.

    Args:
        name: `org/name` or `org/name@revision` on the Hub, `nih:FOLDER` (as the NIH publishes it), `parquet:FOLDER`,
            `phantom:N` (N drawings), `csv:FILE` (a table of your own) or `unlabelled:FOLDER` (parquet files of which
            only the images are read: for what teachers say of them).
        without: METADATA_COLUMNS, but image_id, that a table of one's own or parquet files may lack and that are not
            read where they stand: what only predicts needs no `findings`. Every row then comes with none.

    Raises:
        SourceError: a name of no such form.
    """
    kind, colon, where = name.partition(":")
    if colon and where and kind in _KINDS:
        return _KINDS[kind](where, without)
    if match := _ON_THE_HUB.fullmatch(name):
        return _hub(match[1], match[2] or PINNED_REVISIONS.get(match[1], "main"), without)
    raise SourceError(
        f"source {name!r} is none of org/name[@revision] on the Hub, nih:FOLDER, parquet:FOLDER, csv:FILE, phantom:N, "
        "unlabelled:FOLDER"
    )


def _parquet(folder: str, without: Collection[str]) -> ParquetSource:
    return ParquetSource(f"parquet:{folder}", LocalFiles(folder), without)


def _unlabelled(folder: str, without: Collection[str]) -> ParquetSource:
    everything = tuple(field for field in METADATA_COLUMNS if field != "image_id")
    return ParquetSource(f"{UNLABELLED}:{folder}", LocalFiles(folder), everything)


def _nih(folder: str, without: Collection[str]) -> Source:
    from cxrfpn.data.sources.nih import NihSource

    return NihSource(Path(folder))


def _csv(file: str, without: Collection[str]) -> Source:
    from cxrfpn.data.sources.csv_table import CsvSource

    return CsvSource(Path(file), without)


def _phantom(count: str, without: Collection[str]) -> Source:
    if not count.isdecimal() or int(count) == 0:
        raise SourceError(f"phantom:{count}: {count!r} is not a number of drawings")
    from cxrfpn.data.phantom import PhantomSource

    return PhantomSource(int(count))


def _hub(repo: str, revision: str, without: Collection[str]) -> Source:
    from cxrfpn.data.sources.hub import HubFiles

    files = HubFiles(repo, revision)
    return ParquetSource(files.name, files, without)


_KINDS: dict[str, Callable[[str, Collection[str]], Source]] = {
    "nih": _nih,
    "parquet": _parquet,
    "phantom": _phantom,
    "csv": _csv,
    UNLABELLED: _unlabelled,
}
