"""Read labels in any form that data sets have, as one column of findings that `columns.tabulate` reads.

A column of names ("Mass|Nodule", a list, ClassLabels), or a column of 0 and 1 for each finding.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import SourceError
from cxrfpn.data.sources.columns import NO_FINDING_SPELLINGS, letters
from findings_cxrfpn import match_findings


def finding_columns(columns: Iterable[str], findings: Sequence[str] = FINDINGS) -> dict[str, str]:
    """Map each finding to the column of 0 and 1 that is named by it, in any usual spelling."""
    columns = list(columns)
    known = {letters(name): name for name in findings}
    found = {known[letters(column)]: column for column in columns if letters(column) in known}
    return {findings[place]: columns[where] for where, place in match_findings(columns, findings).items()} | found


def marked_findings(
    table: Mapping[str, Sequence[object]], columns: Mapping[str, str], file: str, first_row: int = 1
) -> tuple[list[list[str]], list[list[str]]]:
    """Read columns of 0 and 1 -> the names of the findings of each row, and of those that are unknown.

    An empty cell, or -1 as CheXpert writes it, is unknown; so is nothing else.

    Args:
        table: column -> its values.
        columns: finding -> its column.
        file, first_row: what errors call the file and its first row.

    Raises:
        SourceError: another value, with its row and column.
    """
    present, unknown = {}, {}
    for finding, column in columns.items():
        values = pd.Series(table[column], dtype=object)
        numbers = pd.to_numeric(values, errors="coerce")
        empty = values.isna() | (values.astype(str).str.strip() == "")
        wrong = ~(numbers.isin((0, 1, -1)) | empty)
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise SourceError(
                f"{file}, row {row + first_row}: {column} is {values[row]!r}, not 0 or 1; leave the cell empty where "
                "it is unknown"
            )
        present[finding], unknown[finding] = numbers == 1, empty | (numbers == -1)
    return _names(present), _names(unknown)


def unread_marks(table: pd.DataFrame, columns_read: Collection[str]) -> list[str]:
    """Return the columns that look like findings, with a 1 and else 0, -1 or empty cells, and are not read."""
    unread = []
    for column in table.columns:
        if column in columns_read or letters(column) in NO_FINDING_SPELLINGS:
            continue
        numbers, empty = pd.to_numeric(table[column], errors="coerce"), table[column].str.strip() == ""
        if (numbers == 1).any() and (numbers.isin((0, 1, -1)) | empty).all():
            unread.append(column)
    return unread


def _names(marks: Mapping[str, pd.Series]) -> list[list[str]]:
    return [[name for name in marks if row[name]] for row in pd.DataFrame(marks).to_dict("records")]
