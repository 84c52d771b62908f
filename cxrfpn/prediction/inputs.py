"""Paths, folders, globs and a table of patients -> the radiographs to predict."""

import csv
import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pixels_cxrfpn import printable

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

    In a folder a file counts by its suffix, or when it has none (as DICOM exports often do); hidden files don't.

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
    """
    inputs, used = [], set()
    for path in paths:
        name = next((name for name in (str(path), path.name, path.stem) if name in patients), None)
        inputs.append(Input(path, patients[name] if name else {}))
        used.add(name)
    return inputs, [name for name in patients if name not in used]


def _is_radiograph(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and (path.suffix.lower() in SUFFIXES or not path.suffix)
