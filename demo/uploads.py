"""Take what visitors upload: files and zips of them, within limits of number and size."""

import contextlib
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from demo.sweeping import LIVE
from errors_cxrfpn import CxrFpnError

MAX_FILE_BYTES = 64 * 2**20
MAX_FILES = 200
# Of the zips of one request, of any kind: folders and hidden files are not read, but it takes time to list them.
MAX_ENTRIES = 2000
# Of all that one request may unpack, bytes.
MAX_BATCH_BYTES = 1024 * 2**20
LONGEST_NAME = 80
PIECE = 2**20  # bytes of a zip's member that are inflated at once
ENTRY_MARK = b"PK\x01\x02"  # before each entry of a zip's directory
# zipfile inflates the others without a limit: 600 bytes of bzip2 become gigabytes of memory, however few are asked for.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class UploadError(CxrFpnError):
    """Raised when an upload is refused; the message is one line that may be shown."""


@dataclass(frozen=True)
class Upload:
    """One file of an upload: its bytes, or one line that says why it is refused.

    `size` is what reading it took, in bytes: a file that is refused may have been inflated to gigabytes all the same.
    """

    name: str
    data: bytes = b""
    error: str | None = None
    size: int = 0


def clean_name(name: str) -> str:
    """Return how the page names a file: the last part of its path, printable, at most 80 characters."""
    last = PurePosixPath(name.replace("\\", "/")).name
    printable = "".join(character if character.isprintable() else " " for character in last).strip()
    return printable[-LONGEST_NAME:] or "file"


def read_upload(path: str | Path) -> Upload:
    """Read an uploaded file.

    Raises:
        UploadError: it is gone or too large.
    """
    path = Path(path)
    name = clean_name(path.name)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UploadError(f"{name}: is larger than {MAX_FILE_BYTES >> 20} MB")
        data = path.read_bytes()
    except OSError:
        raise UploadError(_gone(name)) from None
    return Upload(name, data, size=len(data))


class Batch:
    """The files of one request, in order. Zips are listed at the start, and read member by member, in memory.

    Iterating reads one file after the other. One that is refused comes with its error, and the others follow.

    Args:
        paths: of uploads. A zip stands for its members, without folders and the hidden files that some systems add.

    Raises:
        UploadError: more than 200 files, or a zip that is damaged or lists too much, before any is read; and, while
            they are read, more than 1 GB together.
    """

    def __init__(self, paths: Iterable[str | Path]):
        files = [Path(path) for path in paths]
        _check_count(len(files))
        self._parts: list[tuple[Path, list[zipfile.ZipInfo] | None]] = []
        left = MAX_ENTRIES
        for path in files:
            entries = _list(path, left) if zipfile.is_zipfile(path) else None
            left -= len(entries or ())
            self._parts.append((path, None if entries is None else [entry for entry in entries if _is_file(entry)]))
        _check_count(len(self))

    def __len__(self) -> int:
        return sum(1 if members is None else len(members) for _, members in self._parts)

    def __iter__(self) -> Iterator[Upload]:
        left = MAX_BATCH_BYTES
        for path, members in self._parts:
            for upload in [_file(path)] if members is None else _members(path, members):
                left -= upload.size
                if left < 0:
                    raise UploadError(f"together the files are larger than {MAX_BATCH_BYTES >> 20} MB; send fewer")
                yield upload


def _check_count(count: int) -> None:
    if count > MAX_FILES:
        raise UploadError(f"{count} files are more than {MAX_FILES}; send fewer at a time")


def _list(path: Path, most: int) -> list[zipfile.ZipInfo]:
    """List a zip, unless it has more than `most` entries: a million take seconds and a gigabyte."""
    name = clean_name(path.name)
    try:
        data = path.read_bytes()
        if data.count(ENTRY_MARK) > most:  # counted, as what a zip says of its own length may be false
            raise UploadError(f"{name}: zips of more than {MAX_ENTRIES} entries in all are not read; send fewer")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.infolist()
    except UploadError:
        raise
    except Exception:  # zipfile raises many kinds on a broken directory
        raise UploadError(f"{name}: the zip is damaged") from None


def _is_file(entry: zipfile.ZipInfo) -> bool:
    """Return whether an entry is a file, and no hidden one that some systems add."""
    return not entry.is_dir() and not re.search(r"(^|/)(\.[^./]|__MACOSX/)", entry.filename)


def _file(path: Path) -> Upload:
    size = 0
    try:
        with contextlib.suppress(OSError):  # the upload is gone, as read_upload will say
            size = min(path.stat().st_size, MAX_FILE_BYTES)
        return read_upload(path)
    except UploadError as error:
        return Upload(clean_name(path.name), error=str(error), size=size)


def _members(path: Path, members: list[zipfile.ZipInfo]) -> Iterator[Upload]:
    """Read a zip's members for as long as the upload is there, so that a zip that takes long comes to an end."""
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(OSError):  # deleted since it was listed
            archive = opened.enter_context(zipfile.ZipFile(path))
        for member in members:
            if path.exists():
                yield _member(archive, member)
            else:
                name = clean_name(member.filename)
                yield Upload(name, error=_gone(name))


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Upload:
    name, data = clean_name(member.filename), bytearray()
    try:
        if member.compress_type not in COMPRESSIONS:
            raise UploadError(f"{name}: its compression is not taken here; make the zip with deflate, the usual one")
        with archive.open(member) as file:
            while piece := file.read(PIECE):  # what the directory says of sizes may be false
                data += piece
                if len(data) > MAX_FILE_BYTES:
                    raise UploadError(f"{name}: is larger than {MAX_FILE_BYTES >> 20} MB")
    except UploadError as error:
        return Upload(name, error=str(error), size=len(data))
    except Exception:  # zipfile raises many kinds on a damaged member
        return Upload(name, error=f"{name}: cannot be unpacked (damaged or encrypted)", size=len(data))
    return Upload(name, bytes(data), size=len(data))


def _gone(name: str) -> str:
    return f"{name}: the upload is gone, as uploads are deleted {LIVE // 60} minutes after they came; choose it again"
