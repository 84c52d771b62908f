"""Tables and numbers of a card, in markdown."""

import re
from collections.abc import Iterable, Mapping, Sequence


def table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    header = list(header)
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(value: float | None) -> str:
    """Return a share as per cent, "-" for None."""
    return "-" if value is None else f"{value:.1%}"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number, "-" for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def fill(page: str, contents: Mapping[str, str]) -> str:
    """Put each text between its markers `<!-- name -->` and `<!-- /name -->`; a page need not have all of them."""
    for name, content in contents.items():
        between = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
        page = between.sub(f"{content}\n".replace("\\", r"\\"), page)
    return page
