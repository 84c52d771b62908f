"""Write files that are there whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Error numbers of a full disk.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; it becomes `path` once everything is on the disk.

    Raises:
        OSError: it cannot be written; nothing of it is left, and what `path` held before stays.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        handle = os.open(beside, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        beside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)  # a full disk needs its space back
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk names no file
        raise


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file: `path` never holds a part of it. Raises as `written_beside` does."""
    with written_beside(path) as beside:
        beside.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """`write_atomically` of a text, in UTF-8."""
    write_atomically(path, text.encode())


def clear_unfinished(folder: Path) -> None:
    """Remove, in any depth, what processes that were killed had been writing."""
    for left in folder.glob("**/*.[0-9]*.tmp"):
        left.unlink(missing_ok=True)
