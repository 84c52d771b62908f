"""What scripts print. Others may have chosen the names in it, and a terminal must obey none of them."""

import sys


def say(*lines: object) -> None:
    """Print lines on standard error. Control characters, such as line ends within a line, become question marks."""
    print(*map(_plain, lines), sep="\n", file=sys.stderr)


def show(*texts: str) -> None:
    """Print texts of one or more lines on standard output, with the same care."""
    print(*(_plain(line) for text in texts for line in text.split("\n")), sep="\n")


def _plain(line: object) -> str:
    from pixels_cxrfpn import printable  # here, since --help needs no numpy

    return printable(str(line))
