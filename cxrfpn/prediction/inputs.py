"""Paths, folders, globs and a table of patients -> the radiographs to predict."""

import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from cxrfpn.table_text import PATH_SPELLINGS, SPELLINGS, find_column, read_rows, read_table
from dicom_cxrfpn import is_dicom
from errors_cxrfpn import CxrFpnError
from patient_cxrfpn import PATIENT_KEYS
from pixels_cxrfpn import printable

# As far as the mark of a DICOM file goes.
MARKED_BYTES = 132
SUFFIXES = {".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".webp", ".tif", ".tiff", ".bmp", ".npy", ".dcm", ".dicom"}
GZIP_SUFFIX = ".gz"
# The index of a folder of DICOM files, which has no suffix either.
DICOMDIR = "DICOMDIR"


class InputError(CxrFpnError):
    """Paths or a table that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Input:
    """A file to predict, and what was said of its patient: what is known, as written, under the pipeline's keys.

    `row` says where it was said ("ward.csv, row 12"), for errors.
    """

    path: Path
    patient: dict[str, Any] = field(default_factory=dict)
    row: str = ""


@dataclass(frozen=True)
class Found:
    """The files to predict, in order, and the files of folders that are passed over, since they are no pictures."""

    radiographs: list[Path]
    skipped: list[Path]


@dataclass(frozen=True)
class PatientRow:
    """A row of a table of patients: its number in the file, and its cells under the pipeline's keys."""

    number: int
    patient: dict[str, str]


@dataclass(frozen=True)
class PatientTable:
    """A table of patients: its file, and its rows by the image's path as the table writes it."""

    file: Path
    rows: dict[str, PatientRow]


def find_radiographs(paths: Iterable[str]) -> Found:
    """Find files as they are; in folders every radiograph in any depth; globs expanded. In order, each once.

    In a folder a file counts by its suffix (also before .gz), when it has none (as DICOM exports often do), or as DICOM
    by its content (a file named by its UID seems to have the suffix .7). A DICOMDIR and all other files are skipped;
    hidden files are not even listed.

    Raises:
        InputError: a folder without radiographs, or a glob that matches nothing.
    """
    found: dict[Path, None] = {}
    skipped: dict[Path, None] = {}
    for text in paths:
        if os.path.isdir(text):  # False, where pathlib raises, for a name that no file can have
            files = sorted(path for path in Path(text).rglob("*") if not path.name.startswith(".") and path.is_file())
            inside = [path for path in files if _is_radiograph(path)]
            if not inside:
                raise InputError(f"{text}: the folder holds no radiographs ({', '.join(sorted(SUFFIXES))})")
            found.update(dict.fromkeys(inside))
            skipped.update(dict.fromkeys(path for path in files if path not in found))
        elif glob.has_magic(text) and not os.path.exists(text):
            matches = _expand(text)
            if not matches:
                raise InputError(f"{text}: matches no file")
            found.update(dict.fromkeys(path for path in matches if path.is_file()))
        else:
            found[Path(text)] = None
    return Found(list(found), list(skipped))


def _expand(pattern: str) -> list[Path]:
    """Expand a glob as a shell does: `*` leaves hidden files out, and `**` enters no link, as links may circle."""
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root, rest = Path(*parts[:first]), parts[first:]
    rest = (*rest, "*") if rest[-1] == "**" else rest
    try:
        matches = sorted(root.glob(str(Path(*rest))))
    except (ValueError, NotImplementedError, OSError) as error:
        raise InputError(f"{pattern}: cannot be expanded ({error})") from None
    if any(part.startswith(".") for part in rest):
        return matches
    return [path for path in matches if not any(part.startswith(".") for part in path.relative_to(root).parts)]


def read_patients(table: Path) -> PatientTable:
    """Read a table of patients: a column that names the image, and any of age, sex and view_position.

    The columns may bear other names, NIH's own among them (`SPELLINGS`), and the file may be separated by commas,
    semicolons or tabs, in any encoding that `decode_table` knows. Empty cells are unknown.

    Raises:
        InputError: no such file, no image column, no patient column, or an image named twice.
    """
    try:
        columns, records = read_rows(read_table(table))
    except OSError as error:
        raise InputError(f"{table}: cannot be read as a table ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{table}: cannot be read as a table ({error})") from None
    image_column = find_column(columns, (*PATH_SPELLINGS, *SPELLINGS["image_id"]))
    known = {key: column for key in PATIENT_KEYS if (column := find_column(columns, SPELLINGS[key]))}
    if image_column is None or not known:
        has = printable(", ".join(columns))
        raise InputError(f"{table}: needs a column 'image' and at least one of age, sex, view_position; it has {has}")
    rows: dict[str, PatientRow] = {}
    for number, record in enumerate(records, start=2):
        image = record[image_column].strip()
        if image in rows:
            raise InputError(f"{table}: names the image {printable(image)} twice (rows {rows[image].number}, {number})")
        patient = {key: record[column].strip() for key, column in known.items() if record[column].strip()}
        rows[image] = PatientRow(number, patient)
    return PatientTable(table, rows)


def match_patients(paths: Iterable[Path], table: PatientTable) -> tuple[list[Input], list[str]]:
    """Give each file its row: by its path as written or from the table's folder, by the end of its path, or its name.

    Suffixes may be missing in the table, and its paths may be those of Windows or of another machine.

    Returns:
        the inputs, and the names in the table that no file bears.

    Raises:
        InputError: a row that is two files', of which one would be given another patient's age and sex.
    """
    names = _row_names(table.rows)
    inputs: list[Input] = []
    taken: dict[str, Path] = {}
    for path in paths:
        name = next((names[name] for name in _file_names(path, table.file.parent) if name in names), None)
        if name is None:
            inputs.append(Input(path))
            continue
        row = table.rows[name]
        inputs.append(Input(path, row.patient, f"{printable(table.file.name)}, row {row.number}"))
        if name in taken:
            shown, one, other = (printable(str(each)) for each in (name, taken[name], path))
            raise InputError(
                f"the row {shown} of the table of patients fits both {one} and {other}; write their paths into it"
            )
        taken[name] = path
    return inputs, [name for name in table.rows if name not in taken]


def _row_names(rows: Mapping[str, PatientRow]) -> dict[str, str]:
    """Map what a file may be called to its row; a path of another machine counts by its name, if unique."""
    names = {_plain(name): name for name in rows}
    foreign: dict[str, list[str]] = {}
    for name in rows:
        if PureWindowsPath(name).drive or (os.path.isabs(name) and not os.path.exists(name)):
            foreign.setdefault(PureWindowsPath(name).name, []).append(name)
    return {short: those[0] for short, those in foreign.items() if len(those) == 1} | names


def _file_names(path: Path, folder: Path) -> Iterable[str]:
    """Return what a table in `folder` may call a file, the fullest name first."""
    absolute = Path(os.path.abspath(path))
    ends = ("/".join(absolute.parts[start:]) for start in range(1, len(absolute.parts)))
    for name in (str(path), os.path.relpath(absolute, os.path.abspath(folder)), str(absolute), *ends):
        yield _plain(name)
        yield _plain(str(bare(Path(name))))


def _plain(name: str) -> str:
    """Return a path with the slashes of Unix and without ./ at its beginning."""
    return name.replace("\\", "/").removeprefix("./")


def bare(path: Path) -> Path:
    """Return a path without its suffix, if it is one of SUFFIXES: the part after a DICOM UID's last dot is none."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def _is_radiograph(path: Path) -> bool:
    if path.name.upper() == DICOMDIR:
        return False
    suffix = (path.with_suffix("") if path.suffix.lower() == GZIP_SUFFIX else path).suffix.lower()
    return not path.suffix or suffix in SUFFIXES or _is_marked_dicom(path)


def _is_marked_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(MARKED_BYTES), path.name)
    except OSError:  # not a file that anything says to be a radiograph
        return False
