"""The tables of labels that other public test sets come with, read by their own rules and mapped to our findings."""

from collections.abc import Callable
from pathlib import Path

from cxrfpn.data.label_tables.chexpert import read_chexpert, read_mimic
from cxrfpn.data.label_tables.kaggle import read_rsna, read_siim
from cxrfpn.data.label_tables.nih_google import read_nih_google
from cxrfpn.data.label_tables.padchest import read_padchest
from cxrfpn.data.label_tables.source import LabelTableSource
from cxrfpn.data.label_tables.table import LabelTable
from cxrfpn.data.label_tables.vindr import read_vindr
from cxrfpn.data.schema import SourceError

__all__ = ["LABEL_TABLES", "LabelTable", "LabelTableSource", "open_label_table"]

LABEL_TABLES: dict[str, Callable[[Path], LabelTable]] = {
    "chexpert": read_chexpert,
    "mimic": read_mimic,
    "padchest": read_padchest,
    "vindr": read_vindr,
    "rsna": read_rsna,
    "siim": read_siim,
    "nih-google": read_nih_google,
}


def open_label_table(name: str) -> LabelTable:
    """Read a table given as KIND:FILE, with a KIND of LABEL_TABLES.

    Raises:
        SourceError: another kind, no such file, a column that is missing, or a value that the set does not use.
    """
    kind, colon, file = name.partition(":")
    if kind not in LABEL_TABLES or not colon or not file:
        raise SourceError(f"labels {name!r}: give KIND:FILE, with a KIND of {', '.join(LABEL_TABLES)}")
    return LABEL_TABLES[kind](Path(file))
