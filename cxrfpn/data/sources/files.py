"""Image files on disk, in runs that can be streamed apart."""

from pathlib import Path

from cxrfpn.data.schema import SourceError

FILES_A_RUN = 1000


def in_runs(paths: dict[str, str]) -> dict[str, dict[str, str]]:
    """Image id -> path, cut into runs; each is named by its first and its last image."""
    items = list(paths.items())
    runs = [items[start : start + FILES_A_RUN] for start in range(0, len(items), FILES_A_RUN)]
    return {f"{run[0][0]}..{run[-1][0]}": dict(run) for run in runs}


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
