"""Labels in whatever form a data set has them, as one column of findings that `columns.tabulate` reads.

A column of names ("Mass|Nodule", a list, ClassLabels), or a column of 0 and 1 for each finding.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import SourceError
from cxrfpn.data.sources.columns import letters


def finding_columns(columns: Iterable[str]) -> dict[str, str]:
    """Finding -> the column of 0 and 1 that is named by it."""
    known = {letters(name): name for name in FINDINGS}
    return {known[letters(column)]: column for column in columns if letters(column) in known}


def marked_findings(
    table: Mapping[str, Sequence[Any]], columns: Mapping[str, str], file: str, first_row: int = 1
) -> list[list[str]]:
    """Read columns of 0 and 1 -> the names of the findings of each row.

    Args:
        table: column -> its values.
        columns: finding -> its column.
        file, first_row: what errors call the file and its first row.

    Raises:
        SourceError: a value that is neither 0 nor 1, with its row and column.
    """
    present = {}
    for finding, column in columns.items():
        numbers = pd.to_numeric(pd.Series(table[column], dtype=object), errors="coerce")
        wrong = ~numbers.isin((0, 1))
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise SourceError(f"{file}, row {row + first_row}: {column} is {table[column][row]!r}, not 0 or 1")
        present[finding] = numbers == 1
    return [[name for name in present if row[name]] for row in pd.DataFrame(present).to_dict("records")]
