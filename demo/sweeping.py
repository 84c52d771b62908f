"""Delete uploads some minutes after they came, and all of them when the process ends."""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# How long an upload is kept, and how often old ones are looked for, in seconds. An upload cannot be deleted after its
# first reading: gradio stores equal files of equal names once, and another visitor's request may still need it.
LIVE, EVERY = 300, 20


@contextlib.contextmanager
def upload_folder() -> Iterator[Path]:
    """Make a folder for all that this process writes for a while, and for nobody else's files; delete it at the end.

    One that GRADIO_TEMP_DIR names is used instead, and stays: its owner may keep other things there.
    """
    if named := os.environ.get("GRADIO_TEMP_DIR"):
        Path(named).mkdir(parents=True, exist_ok=True)
        with _temporary_files_in(named):
            yield Path(named)
        return
    # An upload that is just being written may come in the way; it must not hide why the process ends.
    with tempfile.TemporaryDirectory(prefix="cxr-demo-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            with _temporary_files_in(folder):
                yield Path(folder)
        finally:
            del os.environ["GRADIO_TEMP_DIR"]


@contextlib.contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Let the process make every temporary file in a folder that is swept, also those of libraries."""
    before, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = before


def sweep(folder: Path, live: float = LIVE) -> None:
    """Delete every file under `folder` that came more than `live` seconds ago, and folders that are left empty."""
    oldest = time.time() - live
    for path in sorted(folder.rglob("*"), reverse=True):  # what lies in a folder comes before it
        with contextlib.suppress(OSError):  # gone already, or a folder that is not empty
            if path.lstat().st_ctime < oldest:
                path.rmdir() if path.is_dir() else path.unlink()


def start_sweeping(folder: Path) -> None:
    """Sweep for as long as the process runs."""

    def forever() -> None:
        while True:
            time.sleep(EVERY)
            sweep(folder)

    threading.Thread(target=forever, name="sweep", daemon=True).start()
