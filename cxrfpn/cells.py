"""Text of unknown origin, as it may stand in a CSV file that a spreadsheet opens and that a terminal shows."""

import csv
import re
from collections.abc import Iterable, Sequence
from typing import TextIO

from pixels_cxrfpn import printable

# Where a spreadsheet would begin to calculate: at the start of a cell, or of what it takes for one, since it may split
# cells at semicolons and tabs. Spaces and quotes may stand in between, and the signs have full-width forms.
_FORMULA = re.compile(r"(^|[;,\t])(?=[\s'\"]*[=+\-@＝＋－＠])")
_ESCAPED = re.compile(r"(^|[;,\t])'(?=[\s'\"]*[=+\-@＝＋－＠])")


def cell(text: str) -> str:
    """Return text that no spreadsheet takes for a formula and no terminal for a command.

    An apostrophe stands before what would be a formula; control characters become question marks.
    """
    return _FORMULA.sub(r"\1'", printable(text))


def text_of(cell: str) -> str:
    """Return the text of a cell that `cell` wrote, control characters excepted."""
    return _ESCAPED.sub(r"\1", cell)


def write_csv(file: TextIO, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file. All text is quoted and escaped; numbers are written as they are."""
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(columns)
    writer.writerows([cell(value) if isinstance(value, str) else value for value in row] for row in rows)
