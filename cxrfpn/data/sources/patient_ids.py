"""Patient ids in one form, so that a patient of one source is recognised in another."""

import logging
import re

import pandas as pd

from pixels_cxrfpn import printable

logger = logging.getLogger(__name__)

# NIH's ids go from 1 to 30805, and its files are named 00000013_005.png: patient 13, follow-up 5.
_NIH_IMAGE = re.compile(r"(?:.*/)?(000[0-3]\d{4})_\d{3}")
_NUMBER = re.compile(r"0*(\d+?)(?:\.0+)?", re.ASCII)


def read_patient_id(value: object) -> str | None:
    """Return the id in a cell as text, a whole number without leading zeros; None for an empty cell.

    3, 3.0, "3" and "00000003" are one patient: tables lose and gain zeros on their way through spreadsheets, and two
    ids for one patient would put the patient on both sides of a split.
    """
    text = "" if value is None else str(value).strip()
    match = _NUMBER.fullmatch(text)
    return match[1] if match else text or None


def nih_patient(image_id: str) -> str | None:
    """Return the patient that a file name of the NIH gives; None for any other name."""
    match = _NIH_IMAGE.fullmatch(image_id)
    return str(int(match[1])) if match else None


def warn_of_other_patients(table: pd.DataFrame) -> None:
    """Warn where files are named as the NIH names those of other patients than the table says.

    Args:
        table: with columns image_id and patient_id, indexed by (file, row).
    """
    named = table["image_id"].map(nih_patient)
    differs = (named.notna() & (named != table["patient_id"])).to_numpy()
    if differs.any():
        first = int(differs.argmax())
        file, row = table.index[first]
        logger.warning(
            "%s, row %s: image %s belongs to patient %s by its name and to patient %s by the table (%d images differ); "
            "if the files are the NIH's, name the patients as the files do, or splits by patient leak",
            printable(file), row, printable(table["image_id"].iloc[first]), named.iloc[first],
            printable(table["patient_id"].iloc[first]), differs.sum(),
        )  # fmt: skip
