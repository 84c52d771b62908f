"""Image files on disk, in runs that can be streamed apart."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from cxrfpn.data.schema import SourceError

FILES_A_RUN = 1000
# What the system says of one file that it cannot give. Anything else (a file that was there and is gone, a server that
# does not answer) may be said of all the others next, and is no reason to write them off.
OF_ONE_FILE = (errno.EACCES, errno.EPERM, errno.EIO)


def files_in(folder: Path) -> Iterator[Path]:
    """Yield every file of a folder, in any depth; folders that links lead to are entered once, though links may circle.

    Files of one folder come together, and in no order that is promised.
    """
    entered: set[tuple[int, int]] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (Path(where, file) for file in files)


def in_runs(paths: dict[str, str]) -> dict[str, dict[str, str]]:
    """Image id -> path, cut into runs; each is named by its first and its last image."""
    items = list(paths.items())
    runs = [items[start : start + FILES_A_RUN] for start in range(0, len(items), FILES_A_RUN)]
    return {f"{run[0][0]}..{run[-1][0]}": dict(run) for run in runs}


def read_file(path: Path) -> tuple[bytes, str | None]:
    """Read a file; where it cannot be read, return nothing and the reason.

    Raises:
        SourceError: it cannot be read for a reason that does not lie in this one file.
    """
    try:
        return path.read_bytes(), None
    except OSError as error:
        if error.errno in OF_ONE_FILE:
            return b"", f"the file cannot be read ({error.strerror})"
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
