"""Read tables as text files, in any encoding and with any separator, and the names of their columns.

Without pandas, which takes longer to import than a small table takes to read.
"""

import codecs
import csv
import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Iterable
from pathlib import Path

DELIMITERS = ",;\t|"
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
GZIP = b"\x1f\x8b"
# Of a table, inflated. That of all 112,120 images of the NIH has 8 MB.
MAX_BYTES = 512 * 2**20
# Field -> the names of its column as `letters` writes them, the first choice first.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "image_id": ("imageid", "imageindex", "filename", "imagename"),
    "patient_id": ("patientid", "patient"),
    "age": ("age", "patientage", "ageyears"),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "view_position": ("viewposition", "view", "projection", "appa"),
    "findings": ("labelnames", "findings", "findinglabels", "labels", "label"),
    "split": ("split",),
    "fold": ("fold",),
}
# The names of the column that holds the path, or the name, of an image file.
PATH_SPELLINGS = ("path", "imagepath", "filepath", "image", "file", "filename", "imageindex")


def letters(name: str) -> str:
    """Return a name in lower case without spaces and punctuation: "Patient ID" and "patient_id" -> "patientid"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find_column(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the first column that bears one of the names, in the order of the names."""
    known = {letters(column): column for column in columns}
    return next((known[name] for name in names if name in known), None)


def decode_table(data: bytes) -> tuple[str, str]:
    """Decode the bytes of a table, also of one in gzip.

    Text without a byte order mark is UTF-16 if every other byte is zero, UTF-8 if it can be, and else Latin-1 (as
    Windows extends it).

    Returns:
        the text, and the separator of its cells: the one that its first line has most of. Excel's line `sep=;` decides
        and is left out.

    Raises:
        ValueError: gzip or UTF-16 that is damaged.
    """
    if data.startswith(GZIP):
        data = _inflated(data)
    text = _decode(data)
    first, _, rest = text.lstrip("\r\n").partition("\n")
    if match := re.fullmatch(r"sep=(.)\r?", first):
        return rest, match[1]
    unquoted = re.sub(r'"[^"]*"', "", first)
    return text, max(DELIMITERS, key=unquoted.count)


def read_table(path: Path) -> bytes:
    """Read the file of a table.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a pipe or a device, which may be waited for without end, or too large.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is a pipe or a device; save it as a file first")
        if status.st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MB")
        return file.read()


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _inflated(data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise ValueError("the gzip file is damaged") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"it inflates to more than {MAX_BYTES >> 20} MB")
    return content


def _decode(data: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return _decoded(data, encoding)
    for encoding, zeros in (("utf-16-le", data[1:200:2]), ("utf-16-be", data[0:200:2])):
        if len(zeros) > 1 and not zeros.strip(b"\0"):
            return _decoded(data, encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError(f"it begins as {encoding.upper()} and is something else") from None


def read_rows(data: bytes) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table: its column names, and its rows as mappings with "" for cells that are not there.

    Raises:
        ValueError: it is no table.
    """
    text, delimiter = decode_table(data)
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if line]
    except csv.Error as error:
        raise ValueError(str(error)) from None
    columns = [name.strip() for name in lines[0]] if lines else []
    width = len(columns)
    return columns, [dict(zip(columns, line + [""] * (width - len(line)), strict=False)) for line in lines[1:]]
