"""The columns of a source's table, in any spelling -> the one schema; and what no table may hold."""

import io
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pandas as pd

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import METADATA_COLUMNS, UNKNOWN_COLUMN, VALIDATION_FOLD, Box, Row, SourceError
from cxrfpn.data.sources.patient_ids import nih_patient, read_patient_id, warn_of_other_patients
from cxrfpn.table_text import SPELLINGS, decode_table, letters, read_table
from findings_cxrfpn import match_findings
from patient_cxrfpn import Patient

logger = logging.getLogger(__name__)
T = TypeVar("T")
# Field -> its values as a file has them: strings, numbers, lists, None.
RawColumns = dict[str, Sequence[Any]]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
# Any fold that is not the validation set's.
OTHER_FOLD = VALIDATION_FOLD + 1
SPLITS = {"train": "train", "test": "test", **dict.fromkeys(("validation", "valid", "val", "dev"), "validation")}

_IMAGE_SUFFIX = re.compile(rf"({'|'.join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)})$", re.IGNORECASE)


# What stands for the absence of findings.
NO_FINDING_SPELLINGS = ("nofinding", "normal")


def spelled(
    columns: Iterable[str], without: Collection[str] = (), given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return field -> the column that holds it, for the fields that a table has, except those of `without`.

    Args:
        given: field -> its column where names differ; "" for a field that is not to be read.

    Raises:
        SourceError: the table lacks a given column.
    """
    known = {letters(column): column for column in columns}
    found = {field: next((known[name] for name in names if name in known), None) for field, names in SPELLINGS.items()}
    for field, column in (given or {}).items():
        if field not in SPELLINGS:
            continue
        if column and letters(column) not in known:
            raise SourceError(f"no column {column!r} for {field}; the columns are {', '.join(known.values())}")
        found[field] = known[letters(column)] if column else None
    return {field: column for field, column in found.items() if column is not None and field not in without}


def read_csv(file: Path | BinaryIO, name: str, header: int | None = 0) -> pd.DataFrame:
    """Read a table of nothing but strings, in any encoding and with any separator; a missing cell is "".

    Args:
        name: what errors call it.
        header: the line of the column names, or None.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        text, delimiter = decode_table(read_table(file) if isinstance(file, Path) else file.read())
        options = {"header": header, "sep": delimiter, "dtype": str, "keep_default_na": False, "index_col": False}
        table = pd.read_csv(io.StringIO(text), **options)
    except (OSError, ValueError, EOFError) as error:  # pandas' own parser errors are ValueErrors
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise SourceError(f"{name}: cannot be read as a table ({reason})") from None
    if header is not None:
        table.columns = table.columns.str.strip()
    return table.fillna("")  # short lines


def tabulate(raw: RawColumns, file: str, first_row: int = 1, findings: Sequence[str] = FINDINGS) -> pd.DataFrame:
    """Raw columns of one file -> METADATA_COLUMNS, and `unknown` where something is, indexed by (file, row).

    Args:
        raw: the columns as they came, `image_id` and `findings` at least. Without
            a patient, NIH's file names tell it, and any other image is a patient of its own.
        file: what errors call the file.
        first_row: what errors call its first row.
        findings: the names that findings may have.

    Raises:
        SourceError: a value that cannot be read, with its file, row and image.
    """
    ids = _read(raw["image_id"], image_id_of, lambda row: f"{file}, row {first_row + row}")

    def read(field: str, reader: Callable[[Any], T]) -> list[T | None]:
        values = raw.get(field)
        if values is None:
            return [None] * len(ids)
        return _read(values, reader, lambda row: f"{file}, row {first_row + row}, image {ids[row]}")

    splits, folds = read("split", _split), read("fold", _fold)
    if "validation" in splits:
        folds = [_fold_of(split, fold) for split, fold in zip(splits, folds, strict=True)]
    patients = zip(read("patient_id", read_patient_id), ids, strict=True)
    columns = {
        "image_id": ids,
        "patient_id": [patient or nih_patient(image_id) or image_id for patient, image_id in patients],
        "age": np.array(read("age", lambda value: Patient(age=value).age), np.float64),
        "sex": read("sex", lambda value: Patient(sex=value).sex),
        "view_position": read("view_position", lambda value: Patient(view_position=value).view_position),
        "findings": read("findings", lambda value: read_findings(value, findings)),
        "split": ["train" if split == "validation" else split for split in splits],
        "fold": np.array(folds, np.float64),
    }
    if any(raw.get(UNKNOWN_COLUMN) or ()):
        columns[UNKNOWN_COLUMN] = [tuple(names or ()) for names in raw[UNKNOWN_COLUMN]]
    rows = range(first_row, first_row + len(ids))
    return pd.DataFrame(columns, index=pd.MultiIndex.from_product([[file], rows]))


def checked(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table indexed by (file, row) numbered from 0; warn where patients and NIH file names disagree.

    Raises:
        SourceError: an image twice, or a patient on both sides of a split; with the files and rows.
    """
    if twice := _first_true(table["image_id"].duplicated()):
        first, second = np.flatnonzero(table["image_id"] == table["image_id"].iloc[twice])[:2]
        raise SourceError(
            f"{_place(table, second)}: image {table['image_id'].iloc[second]} was there already in "
            f"{_place(table, first)}; every image may be listed once"
        )
    validation = (table["split"] == "train") & (table["fold"] == VALIDATION_FOLD)
    sides = pd.DataFrame(
        {"patient": table["patient_id"].to_numpy(), "side": table["split"].mask(validation, "validation").to_numpy()}
    ).dropna()
    sides["row"] = sides.index
    first_rows = sides.drop_duplicates(["patient", "side"])
    if leak := _first_true(first_rows["patient"].duplicated()):
        patient = first_rows["patient"].iloc[leak]
        one, other, *_ = first_rows[first_rows["patient"] == patient].itertuples(index=False)
        raise SourceError(
            f"{_place(table, other.row)}: patient {patient} is in {other.side} here and in {one.side} in "
            f"{_place(table, one.row)}; all images of a patient belong on one side of a split (--columns split= "
            "reads no split)"
        )
    warn_of_other_patients(table)
    return table.reset_index(drop=True)


def make_row(record: Any, image: bytes, boxes: tuple[Box, ...] = (), error: str | None = None) -> Row:
    """Make a Row of a table's row (a named tuple with METADATA_COLUMNS) and its image file, or of an error."""
    values = {name: getattr(record, name) for name in METADATA_COLUMNS}
    known = {name: value for name, value in values.items() if isinstance(value, tuple) or value == value}
    patient: dict[str, Any] = {name: known.get(name) for name in METADATA_COLUMNS}
    patient["fold"] = None if patient["fold"] is None else int(patient["fold"])
    unknown = getattr(record, UNKNOWN_COLUMN, ())
    unknown = unknown if isinstance(unknown, tuple) else ()  # of a file that knows all, beside others
    return Row(image=image, boxes=boxes, error=error, unknown=unknown, **patient)


def warn_of_lone_images(table: pd.DataFrame, name: str) -> None:
    """Say of images that are their own patients, since nothing named one, what that does to splits and intervals."""
    if count := int((table["image_id"] == table["patient_id"]).sum()):
        logger.warning(
            "%s: %d of %d images name no patient and count as one each; where patients have several, splits by patient "
            "leak and intervals are too narrow: give a column patient_id",
            name, count, len(table),
        )  # fmt: skip


def read_findings(value: str | Sequence[str] | None, findings: Sequence[str] = FINDINGS) -> tuple[str, ...]:
    """Names, "A|B" or "No Finding" -> names in the order of `findings`.

    Raises:
        ValueError: nothing at all, a number, an unknown name, or No Finding beside a finding.
    """
    if value is None or value == "":
        raise ValueError('the findings are missing; write "No Finding" where there are none')
    names = value.split("|") if isinstance(value, str) else value
    found = {name: finding_named(name, findings) for name in names}
    if None in found.values() and len(found) > 1:
        raise ValueError(f"No Finding and a finding at once: {'|'.join(names)}")
    return tuple(finding for finding in findings if finding in found.values())


def finding_named(name: object, findings: Sequence[str] = FINDINGS) -> str | None:
    """Return the finding of this name in any case and separators, or of an alias; None for "No Finding".

    Raises:
        ValueError: no finding has that name.
    """
    if not isinstance(name, str):
        raise ValueError(f"the finding {name!r} is a number that the file does not name")
    if letters(name) in NO_FINDING_SPELLINGS:
        return None
    spellings = {letters(finding): finding for finding in findings}
    if letters(name) in spellings:
        return spellings[letters(name)]
    if (match := match_findings([name], findings)) and 0 in match:
        return findings[match[0]]
    raise ValueError(f"unknown finding {name!r}; known are No Finding, {', '.join(findings)}")


def image_id_of(value: object) -> str:
    """Return a file name without the suffix of an image.

    Raises:
        ValueError: there is no name.
    """
    image_id = _IMAGE_SUFFIX.sub("", _text(value) or "")
    if not image_id:
        raise ValueError("the image has no name")
    return image_id


def _read(values: Sequence[object], reader: Callable[[Any], T], where: Callable[[int], str]) -> list[T]:
    """Read every value; one that comes again (most do) is read once."""
    hashable = [tuple(value) if isinstance(value, list) else value for value in values]
    codes, different = pd.factorize(pd.Series(hashable, dtype=object), use_na_sentinel=False)
    read = []
    for code, value in enumerate(different):
        try:
            read.append(reader(None if pd.api.types.is_scalar(value) and pd.isna(value) else value))
        except ValueError as error:
            raise SourceError(f"{where(int((codes == code).argmax()))}: {error}") from None
    return [read[code] for code in codes]


def _text(value: object) -> str | None:
    if isinstance(value, float) and value.is_integer():  # whole numbers in a column that lacks some
        value = int(value)
    return None if value is None else str(value).strip() or None


def _split(value: object) -> str | None:
    text = _text(value)
    if text is None:
        return None
    if text.lower() not in SPLITS:
        raise ValueError(f"split {value!r} is none of train, validation, test")
    return SPLITS[text.lower()]


def _fold_of(split: str | None, fold: int | None) -> int | None:
    """Return the fold in a table that sets validation apart, which means that the rest of train is not in it."""
    if split == "validation":
        return VALIDATION_FOLD
    return OTHER_FOLD if split == "train" and fold is None else fold


def _fold(value: object) -> int | None:
    text = _text(value)
    if text is None:
        return None
    if not text.isdecimal():
        raise ValueError(f"fold {value!r} is not a whole number")
    return int(text)


def _first_true(flags: pd.Series) -> int | None:
    """Where the first True stands; never 0, since the first of its kind repeats nothing."""
    places = np.flatnonzero(flags)
    return int(places[0]) if len(places) else None


def _place(table: pd.DataFrame, row: int) -> str:
    file, number = table.index[row]
    return f"{file}, row {number}"
