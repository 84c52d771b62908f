"""A table of one's own: a path of an image in every row, its findings, and what is known of the patient."""

import logging
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PureWindowsPath

import pandas as pd

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import UNKNOWN_COLUMN, Row, SourceError
from cxrfpn.data.sources.columns import (
    checked,
    letters,
    make_row,
    read_csv,
    spelled,
    tabulate,
    warn_of_lone_images,
)
from cxrfpn.data.sources.files import in_runs, read_file
from cxrfpn.data.sources.labels import finding_columns, marked_findings, unread_marks
from cxrfpn.table_text import PATH_SPELLINGS

logger = logging.getLogger(__name__)


class CsvSource:
    """A part is a run of rows. Paths are relative to the table's folder; an image without an id is called by its path.

    Findings stand in one column ("Mass|Nodule", "No Finding"), or in a column of 0 and 1 for each finding that was
    looked for. An empty cell, or -1, is unknown, and so is a finding that has no column. Age, sex, view position,
    patient and split may be missing, as columns or cell by cell.

    Args:
        without: fields that are not read, as in `open_source`.
        columns: field -> column, as in `open_source`.
        findings: the names that findings may have.
    """

    def __init__(
        self,
        file: Path,
        without: Collection[str] = (),
        columns: Mapping[str, str] | None = None,
        findings: Sequence[str] = FINDINGS,
    ) -> None:
        self.file, self.without, self.columns, self.findings = file, without, columns or {}, findings
        self.name = f"csv:{file}"

    def metadata(self) -> pd.DataFrame:
        """See `Source.metadata`."""
        warn_of_lone_images(self._table, self.name)
        self._warn_of_finding_columns()
        return self._table.copy()

    def parts(self) -> list[str]:
        """See `Source.parts`."""
        for row, path in enumerate(self._paths.values(), start=2):
            if not Path(path).is_file():
                raise SourceError(f"{self.file}, row {row}: no file {path} (paths start at the table's folder)")
        return list(self._runs)

    def rows(self, part: str, wanted: Container[str] | None = None) -> Iterator[Row]:
        """See `Source.rows`."""
        paths = self._runs[part]
        for record in self._table[self._table["image_id"].isin(paths)].itertuples(index=False):
            if wanted is None or record.image_id in wanted:
                image, error = read_file(Path(paths[record.image_id]))
                yield make_row(record, image, error=error)

    @cached_property
    def _raw(self) -> pd.DataFrame:
        return read_csv(self.file, str(self.file))

    @cached_property
    def _table(self) -> pd.DataFrame:
        fields = spelled(self._raw.columns, self.without, self.columns)
        raw = {field: self._raw[column].tolist() for field, column in fields.items()}
        raw.setdefault("image_id", self._path_column.tolist())
        if "findings" in self.without:
            raw["findings"] = [()] * len(self._raw)
        elif "findings" not in raw:
            raw["findings"], raw[UNKNOWN_COLUMN] = self._marked_findings()
        return checked(tabulate(raw, str(self.file), first_row=2, findings=self.findings))

    def _warn_of_finding_columns(self) -> None:
        """Name the findings that have no column, and the columns that may be findings of other names."""
        fields = spelled(self._raw.columns, given=self.columns)
        if "findings" in self.without or "findings" in fields:
            return
        there = finding_columns(self._raw.columns, self.findings)
        if lacking := [finding for finding in self.findings if finding not in there]:
            logger.warning("%s: has no column of %s: unknown on every image", self.name, ", ".join(lacking))
        if unread := unread_marks(self._raw, {*fields.values(), *there.values()}):
            logger.warning(
                "%s: does not read %s: these columns of 0 and 1 are none of the findings; name those that are in "
                "--findings",
                self.name, ", ".join(unread),
            )  # fmt: skip

    def _marked_findings(self) -> tuple[list[list[str]], list[list[str]]]:
        if not (columns := finding_columns(self._raw.columns, self.findings)):
            raise SourceError(
                f"{self.file}: has neither a column of findings nor columns named by findings; without labels there "
                "is nothing to train on or to score"
            )
        present, unknown = marked_findings(self._raw, columns, str(self.file), first_row=2)
        lacking = [finding for finding in self.findings if finding not in columns]
        return present, [[*names, *lacking] for names in unknown]

    @cached_property
    def _paths(self) -> dict[str, str]:
        """Image id -> path."""
        paths = (str(locate(self.file.parent, path)) for path in self._path_column)
        return dict(zip(self._table["image_id"], paths, strict=True))

    @property
    def _path_column(self) -> pd.Series:
        columns = {letters(column): column for column in self._raw.columns}
        names = [letters(self.columns["image"])] if "image" in self.columns else PATH_SPELLINGS
        column = next((columns[name] for name in names if name in columns), None)
        if column is None:
            raise SourceError(f"{self.file}: has no column of paths, called image or path")
        return self._raw[column]

    @cached_property
    def _runs(self) -> dict[str, dict[str, str]]:
        return in_runs(self._paths)


def locate(folder: Path, written: str) -> Path:
    r"""Return where the image of a table in `folder` lies; written by Windows, also by the end of its path.

    `C:\ward\films\1.png` may be `folder/ward/films/1.png`, `folder/films/1.png` or `folder/1.png`.
    """
    path = folder / written.strip()
    if "\\" not in written or path.exists():
        return path
    parts = [part for part in PureWindowsPath(written.strip()).parts if "\\" not in part and part != ".."]
    ends = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end.exists()), folder.joinpath(*parts))
