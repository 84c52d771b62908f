"""Uploads by strangers -> bytes that are safe to decode: sizes, formats and pixel counts are checked on headers."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from dicom_cxrfpn import DEFLATED_DICOM
from radiograph_cxrfpn import FORMATS

MAX_FILE_BYTES = 64 * 2**20
# Twice the largest chest detector. The bare reader takes more; a machine that is open to the world need not.
MAX_PIXELS = 30_000_000
MAX_FILES = 200
# Of all that one request may unpack, bytes.
MAX_BATCH_BYTES = 1024 * 2**20
LONGEST_NAME = 80


class UploadError(ValueError):
    """An upload that is refused; the message is one line that may be shown."""


@dataclass(frozen=True)
class Upload:
    """One file of an upload: its bytes, or the line that says why there are none."""

    name: str
    data: bytes = b""
    error: str | None = None


def clean_name(name: str) -> str:
    """What a file may be called on the page: the last part of its path, printable, at most 80 characters."""
    last = PurePosixPath(name.replace("\\", "/")).name
    printable = "".join(character if character.isprintable() else " " for character in last).strip()
    return printable[-LONGEST_NAME:] or "file"


def read_upload(path: str | Path) -> Upload:
    """Read an uploaded file.

    Raises:
        UploadError: it is gone, too large, of another kind, or has too many pixels.
    """
    path = Path(path)
    name = clean_name(path.name)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UploadError(f"{name}: is larger than {MAX_FILE_BYTES >> 20} MB")
        data = path.read_bytes()
    except OSError:
        raise UploadError(f"{name}: the upload is gone, as uploads are deleted after use; choose it again") from None
    check_header(data, name)
    return Upload(name, data)


def check_header(data: bytes, name: str) -> None:
    """Refuse what would take too much to decode, and formats that nobody keeps radiographs in.

    Raises:
        UploadError: no image of the known kinds, or too many pixels.
    """
    if is_dicom(data, name):
        _check_dicom(data, name)
        return
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_pixels(*image.size, name)
    except UnidentifiedImageError:
        raise UploadError(f"{name}: not an image that can be read (PNG, JPEG, WebP, TIFF, BMP or DICOM)") from None
    except UploadError:
        raise
    except Exception:  # Pillow's parsers raise many kinds on broken headers
        raise UploadError(f"{name}: damaged or truncated") from None


def is_dicom(data: bytes, name: str) -> bool:
    """By its mark, or by its suffix where the mark was left out."""
    return data[128:132] == b"DICM" or name.lower().endswith((".dcm", ".dicom"))


def _check_dicom(data: bytes, name: str) -> None:
    import pydicom

    if DEFLATED_DICOM.search(data):
        raise UploadError(f"{name}: deflated DICOM is not taken here; save it uncompressed")
    try:
        header = pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True)
        rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    except Exception:
        raise UploadError(f"{name}: the DICOM file cannot be read") from None
    _check_pixels(columns, rows, name)


def _check_pixels(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise UploadError(f"{name}: {width} x {height} pixels are more than {MAX_PIXELS // 10**6} million; shrink it")


def read_batch(paths: Iterable[str | Path]) -> Iterator[Upload]:
    """The files of a batch one by one; a zip is read member by member, in memory, and never unpacked to disk.

    A file that is refused comes with its error, and the others go on.

    Raises:
        UploadError: more than 200 files, before any is decoded.
    """
    paths = [Path(path) for path in paths]
    if (count := count_batch(paths)) > MAX_FILES:
        raise UploadError(f"{count} files are more than {MAX_FILES}; send fewer at a time")
    left = MAX_BATCH_BYTES
    for path in paths:
        for upload in _zip_members(path) if zipfile.is_zipfile(path) else [_file(path)]:
            left -= len(upload.data)
            if left < 0:
                raise UploadError(f"together the files are larger than {MAX_BATCH_BYTES >> 20} MB; send fewer")
            yield upload


def count_batch(paths: Iterable[str | Path]) -> int:
    """How many files `read_batch` will give."""
    return sum(_count(Path(path)) for path in paths)


def _file(path: Path) -> Upload:
    try:
        return read_upload(path)
    except UploadError as error:
        return Upload(clean_name(path.name), error=str(error))


def _count(path: Path) -> int:
    return len(_listed(path)) if zipfile.is_zipfile(path) else 1


def _listed(path: Path) -> list[zipfile.ZipInfo]:
    """What counts of a zip: no folders, nor the hidden files that some systems add."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        raise UploadError(f"{clean_name(path.name)}: the zip is damaged") from None
    hidden = re.compile(r"(^|/)(\.[^./]|__MACOSX/)")
    return [member for member in members if not member.is_dir() and not hidden.search(member.filename)]


def _zip_members(path: Path) -> Iterator[Upload]:
    with zipfile.ZipFile(path) as archive:
        for member in _listed(path):
            name = clean_name(member.filename)
            try:
                with archive.open(member) as file:
                    data = file.read(MAX_FILE_BYTES + 1)  # what the directory says of sizes may be a lie
                if len(data) > MAX_FILE_BYTES:
                    raise UploadError(f"{name}: is larger than {MAX_FILE_BYTES >> 20} MB")
                check_header(data, name)
                yield Upload(name, data)
            except UploadError as error:
                yield Upload(name, error=str(error))
            except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError):
                yield Upload(name, error=f"{name}: cannot be unpacked (damaged, encrypted, or an unusual compression)")
