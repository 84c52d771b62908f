"""Sources of labelled radiographs, all giving the one schema."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from configuration_cxrfpn import FINDINGS
from cxrfpn.choices import DEFAULT_SOURCE, FIELDS
from cxrfpn.data.schema import METADATA_COLUMNS, UNLABELLED, Source, SourceError

__all__ = ["DEFAULT_SOURCE", "SourceError", "open_source"]

# Of NIH ChestX-ray14 in the official split, the revision that everything here was written for.
PINNED_REVISIONS = {DEFAULT_SOURCE: "c1bf579641b3256b4d49924436984b82bee5834d"}

_ON_THE_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?(?:@([\w./-]+))?")


def open_source(
    name: str = DEFAULT_SOURCE,
    without: Collection[str] = (),
    columns: Mapping[str, str] | None = None,
    findings: Sequence[str] = FINDINGS,
) -> Source:
    """Open a source by its name. Of most, nothing is read yet.

    Args:
        name: `org/name`, with `:config` and `@revision` where needed, on the Hub; `nih:FOLDER` (as the NIH publishes
            it), `phantom:N` (N drawings), `csv:FILE` (a table of your own), `parquet:FOLDER`, `imagefolder:FOLDER`,
            `json:FILE` or `disk:FOLDER` (as `datasets` saved it), or `unlabelled:FOLDER` (parquet files of which only
            the images are read: for what teachers say of them).
        without: METADATA_COLUMNS, except image_id, that a source may lack and that are not read where they stand: what
            only predicts needs no `findings`. Every row then comes with none.
        columns: field -> column, where a source calls a field of FIELDS by a name of its own; "" for a field that is
            not to be read. Of `nih:` and `phantom:` the columns are known.
        findings: the names that findings may have, of `csv:` and `parquet:`; the others know the 14 of NIH.

    Raises:
        SourceError: a name of no such form, an unknown field, or a data set that the Hub does not have or give.
    """
    columns = columns or {}
    if unknown := [field for field in columns if field not in FIELDS]:
        raise SourceError(f"columns: there is no field {unknown[0]!r}; known are {', '.join(FIELDS)}")
    kind, colon, where = name.partition(":")
    if tuple(findings) != FINDINGS and kind not in (*OWN_FINDINGS, UNLABELLED) and "findings" not in without:
        raise SourceError(f"{name}: knows the 14 findings of NIH only; give own findings as a table, csv:FILE")
    if colon and kind in OWN_FINDINGS and where:
        return OWN_FINDINGS[kind](where, without, columns, findings)
    if colon and where and kind in _KINDS:
        return _KINDS[kind](where, without, columns)
    if match := _ON_THE_HUB.fullmatch(name):
        repo, config, revision = match.groups()
        from cxrfpn.data.sources.repositories import open_repository

        return open_repository(repo, config, revision or PINNED_REVISIONS.get(repo, "main"), without, columns)
    kinds = ", ".join(f"{kind}:..." for kind in (*OWN_FINDINGS, *_KINDS))
    raise SourceError(f"source {name!r} is none of org/name[:config][@revision] on the Hub, {kinds}")


def _parquet(
    folder: str, without: Collection[str], columns: Mapping[str, str], findings: Sequence[str] = FINDINGS
) -> Source:
    from cxrfpn.data.sources.parquet import ParquetSource
    from cxrfpn.data.sources.places import local_place

    return ParquetSource(f"parquet:{folder}", partial(local_place, Path(folder)), without, columns, findings)


def _unlabelled(folder: str, without: Collection[str], columns: Mapping[str, str]) -> Source:
    source = _parquet(folder, tuple(field for field in METADATA_COLUMNS if field != "image_id"), columns)
    source.name = f"{UNLABELLED}:{folder}"
    return source


def _streamed(kind: str, where: str, without: Collection[str], columns: Mapping[str, str]) -> Source:
    from cxrfpn.data.sources.streamed import StreamedSource, open_locally

    base = Path(where).parent if kind == "json" else Path(where)
    return StreamedSource(
        f"{kind}:{where}", partial(open_locally, kind, Path(where)), base.absolute().as_posix(), without, columns
    )


def _nih(folder: str, without: Collection[str], columns: Mapping[str, str]) -> Source:
    from cxrfpn.data.sources.nih import NihSource

    return NihSource(Path(folder))


def _csv(file: str, without: Collection[str], columns: Mapping[str, str], findings: Sequence[str]) -> Source:
    from cxrfpn.data.sources.csv_table import CsvSource

    return CsvSource(Path(file), without, columns, findings)


def _phantom(count: str, without: Collection[str], columns: Mapping[str, str]) -> Source:
    if not count.isdecimal() or int(count) == 0:
        raise SourceError(f"phantom:{count}: {count!r} is not a number of drawings")
    from cxrfpn.data.phantom import PhantomSource

    return PhantomSource(int(count))  # type: ignore[return-value]  # its name cannot be set


# The kinds that take any names of findings.
OWN_FINDINGS: dict[str, Callable[[str, Collection[str], Mapping[str, str], Sequence[str]], Source]] = {
    "parquet": _parquet,
    "csv": _csv,
}
_KINDS: dict[str, Callable[[str, Collection[str], Mapping[str, str]], Source]] = {
    "nih": _nih,
    "phantom": _phantom,
    UNLABELLED: _unlabelled,
    **{kind: partial(_streamed, kind) for kind in ("imagefolder", "json", "disk")},
}
