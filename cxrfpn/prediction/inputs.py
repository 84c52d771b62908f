"""Paths, folders, globs and a table of patients -> the radiographs to predict."""

import csv
import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dicom_cxrfpn import is_dicom
from pixels_cxrfpn import printable

# As far as the mark of a DICOM file goes.
MARKED_BYTES = 132
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".dcm", ".dicom"}
IMAGE_COLUMNS = ("image", "file", "path", "image_id", "Image Index")
PATIENT_COLUMNS = {"age": ("age", "Patient Age"), "sex": ("sex", "Patient Sex", "Patient Gender"),
                   "view_position": ("view_position", "view", "View Position")}  # fmt: skip


class InputError(ValueError):
    """Paths or a table that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Input:
    """A file to predict and what was said of its patient: only what is known, under the pipeline's keys."""

    path: Path
    patient: dict[str, str] = field(default_factory=dict)


def find_radiographs(paths: Iterable[str]) -> list[Path]:
    """Files as they are; of folders every radiograph in any depth; globs expanded. In order, each once.

    In a folder a file counts by its suffix, when it has none (as DICOM exports often do), or as DICOM by its content (a
    file named by its UID seems to have the suffix .7); hidden files don't.

    Raises:
        InputError: a folder without radiographs, or a glob that matches nothing.
    """
    found: dict[Path, None] = {}
    for text in paths:
        if os.path.isdir(text):  # False, where pathlib raises, for a name that no file can have
            inside = sorted(path for path in Path(text).rglob("*") if _is_radiograph(path))
            if not inside:
                raise InputError(f"{text}: the folder holds no radiographs ({', '.join(sorted(SUFFIXES))})")
            found.update(dict.fromkeys(inside))
        elif glob.has_magic(text) and not os.path.exists(text):
            matches = sorted(Path(match) for match in glob.glob(text, recursive=True))
            if not matches:
                raise InputError(f"{text}: matches no file")
            found.update(dict.fromkeys(path for path in matches if path.is_file()))
        else:
            found[Path(text)] = None
    return list(found)


def read_patients(table: Path) -> dict[str, dict[str, str]]:
    """Read a CSV of patients: a column that names the image, and any of age, sex and view_position.

    NIH's own column names are understood too. Empty cells are unknown.

    Returns:
        {image as the table names it: {"age": ..., "sex": ..., "view_position": ...}}.

    Raises:
        InputError: no such file, no image column, no patient column, or an image named twice.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, records = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read as a table ({error})") from None
    image_column = next((name for name in IMAGE_COLUMNS if name in columns), None)
    known = {
        key: next(name for name in names if name in columns)
        for key, names in PATIENT_COLUMNS.items()
        if set(names) & set(columns)
    }
    if image_column is None or not known:
        has = printable(", ".join(columns))
        raise InputError(f"{table}: needs a column 'image' and at least one of age, sex, view_position; it has {has}")
    patients: dict[str, dict[str, str]] = {}
    for record in records:
        image = record[image_column]
        if image in patients:
            raise InputError(f"{table}: names the image {printable(str(image))} twice")
        patients[image] = {
            key: record[column].strip() for key, column in known.items() if (record[column] or "").strip()
        }
    return patients


def match_patients(paths: Iterable[Path], patients: Mapping[str, dict[str, str]]) -> tuple[list[Input], list[str]]:
    """Give each file its row: by the path as written, by file name, or by file name without suffix.

    Returns:
        the inputs, and the names in the table that no file bears.

    Raises:
        InputError: a row that is two files', of which one would be given another patient's age and sex.
    """
    inputs: list[Input] = []
    taken: dict[str, Path] = {}
    for path in paths:
        name = next((name for name in (str(path), path.name, bare(path).name) if name in patients), None)
        inputs.append(Input(path, {} if name is None else patients[name]))
        if name is None:
            continue
        if name in taken:
            row, one, other = (printable(str(each)) for each in (name, taken[name], path))
            raise InputError(
                f"the row {row} of the table of patients fits both {one} and {other}; write their paths into the table"
            )
        taken[name] = path
    return inputs, [name for name in patients if name not in taken]


def bare(path: Path) -> Path:
    """A path without its suffix, if it is one of SUFFIXES: what follows the last dot of a DICOM UID is none."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def _is_radiograph(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    return not path.suffix or path.suffix.lower() in SUFFIXES or _is_marked_dicom(path)


def _is_marked_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(MARKED_BYTES), path.name)
    except OSError:  # not a file that anything says to be a radiograph
        return False
