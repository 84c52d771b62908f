"""What every reader of a label table returns, and what they share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import UNKNOWN_COLUMN, SourceError
from cxrfpn.data.sources.columns import checked, read_csv, tabulate

UNKNOWN = np.nan
# What tables write for present, absent, and uncertain or not mentioned.
STATES = {
    **dict.fromkeys(("1", "1.0", "YES", "PRESENT"), 1.0),
    **dict.fromkeys(("0", "0.0", "NO", "ABSENT"), 0.0),
    **dict.fromkeys(("-1", "-1.0", "", "HEDGE"), UNKNOWN),
}


@dataclass(frozen=True)
class LabelTable:
    """The labels of a test set, for findings of ours.

    metadata has METADATA_COLUMNS and UNKNOWN_COLUMN, one row an image. `groups` has the same rows and a column for each
    label of the set that stands for any of several findings of ours (`members`): 1, 0, or NaN for unknown. `labelled`
    names the findings that the set labels one by one. `notes` are sentences on what was left out or should be known.
    `id_parts` is how many trailing parts of an image id, as a path, tell its file.
    """

    kind: str
    file: Path
    metadata: pd.DataFrame
    labelled: tuple[str, ...]
    groups: pd.DataFrame
    members: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    id_parts: int = 1

    @property
    def name(self) -> str:
        """KIND:FILE, as `open_label_table` takes it."""
        return f"{self.kind}:{self.file}"

    def summary(self) -> str:
        """Say in one line which findings the table labels, and which stay unknown."""
        labelled = [*self.labelled, *(f"{name} (any of {', '.join(self.members[name])})" for name in self.groups)]
        unknown = [finding for finding in FINDINGS if finding not in self.labelled]
        line = f"{self.kind}: {len(self.metadata):,} images; labels {', '.join(labelled)}"
        if unknown:
            line += f"; unknown: {', '.join(unknown)}"
        return ". ".join([line, *self.notes])


def make_table(
    kind: str,
    file: Path,
    rows: Mapping[str, Sequence],
    marks: pd.DataFrame,
    mapping: Mapping[str, tuple[str, ...]],
    notes: Sequence[str] = (),
    id_parts: int = 1,
) -> LabelTable:
    """Bring a set's own labels to ours.

    Args:
        rows: field -> values of N images: `image_id`, and what is known of patient and split.
        marks: [N,K], a column for each label of the set: 1, 0, or NaN for unknown.
        mapping: label of the set -> our finding, or the findings of which it means any. Labels that the table lacks
            are skipped.

    Raises:
        SourceError: no images, an image twice, or a field that cannot be read.
    """
    if not len(marks):
        raise SourceError(f"{file}: holds no frontal images with labels")
    there = {label: findings for label, findings in mapping.items() if label in marks}
    if not there:
        raise SourceError(f"{file}: has none of the columns {', '.join(mapping)}; is it a table of {kind}?")
    single: dict[str, list[str]] = {finding: [] for finding in FINDINGS}
    for label, findings in there.items():
        if len(findings) == 1:
            single[findings[0]].append(label)
    labelled = tuple(finding for finding, labels in single.items() if labels)
    truth = {finding: any_of(marks[single[finding]].to_numpy(float)) for finding in labelled}
    present = [tuple(name for name in labelled if truth[name][row] == 1) for row in range(len(marks))]
    table = tabulate({**rows, "findings": present}, str(file), first_row=2)
    unlabelled = tuple(finding for finding in FINDINGS if finding not in labelled)
    table[UNKNOWN_COLUMN] = [
        (*unlabelled, *(name for name in labelled if np.isnan(truth[name][row]))) for row in range(len(marks))
    ]
    members = {label: findings for label, findings in there.items() if len(findings) > 1}
    groups = marks[list(members)].reset_index(drop=True)
    return LabelTable(kind, file, checked(table), labelled, groups, members, tuple(notes), id_parts)


def any_of(truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N,K] of 1, 0 and NaN -> [N]: 1 where any is present, 0 where all are absent, NaN otherwise."""
    absent = (truth == 0).all(axis=1)
    return np.where((truth == 1).any(axis=1), 1.0, np.where(absent, 0.0, UNKNOWN))


def majority(marks: pd.DataFrame, images: pd.Series) -> pd.DataFrame:
    """Turn the marks of several readers into those of the majority, indexed by image; NaN for a tie."""
    share = marks.groupby(images.to_numpy(), sort=False).mean()
    return (share > 0.5).astype(float).where(share != 0.5, UNKNOWN).where(share.notna(), UNKNOWN)


def read_table(file: Path, *needed: str) -> pd.DataFrame:
    """Read a CSV (also .csv.gz) as text, its column names stripped.

    Raises:
        SourceError: it cannot be read, or lacks a needed column.
    """
    table = read_csv(file, str(file)).rename(columns=str.strip)
    if lacking := [column for column in needed if column not in table]:
        raise SourceError(f"{file}: has no column {lacking[0]}; it has {', '.join(table.columns[:20])}")
    return table


def read_marks(table: pd.DataFrame, labels: Sequence[str], file: Path) -> pd.DataFrame:
    """Read those of `labels` that are columns of the table, as 1, 0 and NaN.

    Raises:
        SourceError: a cell that is none of STATES, with its row and column.
    """
    marks = {}
    for label in labels:
        if label in table:
            cells = table[label].str.strip().str.upper()
            if len(wrong := np.flatnonzero(~cells.isin(list(STATES)))):
                row = wrong[0]
                raise SourceError(
                    f"{file}, row {table.index[row] + 2}: {label} is {table[label].iloc[row]!r}, not 0 or 1"
                )
            marks[label] = cells.map(STATES)
    return pd.DataFrame(marks, index=table.index)


def left_out(count: int, what: str) -> tuple[str, ...]:
    """Return a note on rows that are not used; none for a count of 0."""
    return (f"{count:,} {what} are left out",) if count else ()
