"""Uploads leave the disk when their time is up, or the process ends; whatever became of the request."""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# How long an upload lives, and how often that is looked at, seconds. It cannot go with its first reading: gradio keeps
# equal files of equal names once, so another visitor's request may still wait for it.
LIVE, EVERY = 300, 20


@contextlib.contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder for this process's uploads only, so that nobody else's files are swept; it goes when they are done with.

    One that GRADIO_TEMP_DIR names is taken instead, and stays: whoever named it may keep other things there.
    """
    if named := os.environ.get("GRADIO_TEMP_DIR"):
        yield Path(named)
        return
    # An upload that is just being written may come in the way; it must not hide why the process ends.
    with tempfile.TemporaryDirectory(prefix="cxr-demo-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["GRADIO_TEMP_DIR"]


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
