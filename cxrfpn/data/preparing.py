"""A source -> prepared shards: streamed once, by many processes, to be stopped and resumed anywhere."""

import io
import json
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import cv2
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from cxrfpn.cells import write_csv
from cxrfpn.data.schema import Row, Source, SourceError
from cxrfpn.data.shards import MANIFEST, SHARD_FOLDER, read_manifest, read_summary, shard_paths, write_shard
from cxrfpn.data.sharpness import source_side
from cxrfpn.files import FULL_DISK, clear_unfinished, write_atomically
from errors_cxrfpn import CxrFpnError
from pixels_cxrfpn import RadiographError
from radiograph_cxrfpn import PIXELS_KEPT, PREPARED, read_radiograph, resize_to_square

SKIPPED = "skipped.csv"


class PrepareError(CxrFpnError):
    """Preparing had to stop; the message is one line, and what was finished stays and is not done again."""


@dataclass(frozen=True)
class Prepared:
    """What lies in a prepared folder: images written, and image id -> reason of those that could not be read."""

    folder: Path
    images: int
    skipped: dict[str, str]


@dataclass(frozen=True)
class _Job:
    """What every process needs to know to make the shard of a part."""

    source: Source
    size: int
    seed: int
    parts: list[str]
    shards: list[Path]


def prepare(
    source: Source, folder: str | Path, size: int = 256, processes: int | None = None, seed: int = 0
) -> Prepared:
    """Decode every image of a source once, bring it to size x size, and write it into parquet shards.

    A part of the source becomes one shard, its rows in a seeded random order, since sources list a patient's images
    side by side. A shard is there whole or not at all, so that preparing, stopped in any way, continues with the parts
    that are missing, and every image is written exactly once. An image that cannot be read is listed in skipped.csv.

    Args:
        source: where the images come from; it travels to the processes by pickle.
        size: side of the prepared images, in pixels.
        processes: how many parts are worked on at once; by default one a core.

    Raises:
        SourceError: the source cannot be read, or the folder holds something else.
        PrepareError: the disk is full, or a process died.
    """
    folder, parts, total = Path(folder), source.parts(), len(source.metadata())
    job = _Job(source, size, seed, parts, shard_paths(folder, len(parts)))
    with _one_line_errors(folder):
        _open_folder(folder, {"source": source.name, "size": size, "seed": seed, "parts": parts})
        if todo := [index for index, shard in enumerate(job.shards) if not shard.exists()]:
            _run(job, todo, min(processes or os.cpu_count() or 1, len(todo)), total)
        images, skipped = _summary(job.shards)
        if images + len(skipped) != total:
            raise SourceError(f"{source.name}: lists {total} images and gave {images + len(skipped)}; is it complete?")
        _write_skipped(folder / SKIPPED, skipped)
    return Prepared(folder, images, skipped)


def prepare_image(data: bytes, name: str, size: int) -> tuple[bytes, int]:
    """Turn an image file of any kind into a grey PNG of size x size pixels that shows all of it.

    The pixels are exactly those that an image processor with this `prepared_size` makes on its way. JPEG would halve
    the size (15 KB instead of 31 at 256 pixels) and the time to decode (0.16 ms instead of 0.5), but a network learns
    its traces: trained on JPEG and validated on PNG, its pooled AUROC fell from 0.747 to 0.710.

    Returns:
        the file, and the shorter side of the original file in pixels.

    Raises:
        RadiographError: in one line, where the radiograph cannot be read.
    """
    pixels = read_radiograph(data, name, PIXELS_KEPT * size).pixels
    side = source_side(data, pixels)
    image, file = Image.fromarray(resize_to_square(pixels, size)), io.BytesIO()
    header = PngInfo()
    header.add_text("comment", f"{PREPARED} from {side} px")
    image.save(file, "PNG", pnginfo=header)
    return file.getvalue(), side


def _open_folder(folder: Path, manifest: Mapping[str, object]) -> None:
    """Start a folder, or check that the one that was started is the same.

    Raises:
        SourceError: it was started with another source, size or seed, or holds what prepare.py did not make.
    """
    started: Mapping[str, object] | None = read_manifest(folder)
    if started is None:
        if folder.exists() and not all(path.name.startswith(MANIFEST) for path in folder.iterdir()):
            raise SourceError(f"{folder}: is not empty and was not made by prepare.py; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    elif differing := [key for key in manifest if started[key] != manifest[key]]:
        key = differing[0]
        there, here = ("another list", "this one") if key == "parts" else (started[key], manifest[key])
        raise SourceError(f"{folder}: was started with {key} {there}, not {here}; choose another folder")
    (folder / SHARD_FOLDER).mkdir(exist_ok=True)
    clear_unfinished(folder)


@contextmanager
def _one_line_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise PrepareError(
            f"{folder}: a process died, out of memory perhaps; run the same command again with fewer --processes"
        ) from None
    except OSError as error:
        reason = "the disk is full; make room" if error.errno in FULL_DISK else f"{error}; fix that"
        raise PrepareError(f"{folder}: {reason} and run the same command again to continue") from None


def _run(job: _Job, todo: list[int], processes: int, total: int) -> None:
    """Work on the parts that are missing, with a bar of images, until all are there or one of them fails."""
    images, skipped = _summary(shard for shard in job.shards if shard.exists())
    done = images + len(skipped)
    # A fork server imports once, which takes seconds, and holds none of the threads and connections that the source may
    # have opened here.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload([__name__, type(job.source).__module__])
    seen, others = context.Value("q", done), multiprocessing.active_children()
    with (
        tqdm(total=total, initial=done, desc="preparing", unit=" images", mininterval=0.5) as bar,
        ProcessPoolExecutor(processes, context, _start_worker, (job, seen)) as pool,
    ):
        pending = {pool.submit(_prepare_part, index) for index in todo}
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                bar.update(seen.value - bar.n)
                for future in finished:
                    future.result()
        except BaseException:  # nobody waits for a worker that is in the middle of a part or a slow download
            for process in set(multiprocessing.active_children()).difference(others):
                process.kill()
            raise


_worker: tuple[_Job, Synchronized]


def _start_worker(job: _Job, seen: Synchronized) -> None:
    global _worker
    _worker = job, seen
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """Killed without a chance to say so, the parent would leave its workers waiting without end."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


def _prepare_part(index: int) -> None:
    job, seen = _worker
    prepared: list[tuple[Row, int]] = []
    skipped: dict[str, str] = {}
    for row in job.source.rows(job.parts[index]):
        try:
            # Thresholds are fitted and figures measured on the rest: on the very pixels that the pipeline sees.
            image, side = prepare_image(row.content(), row.image_id, job.size)
            prepared.append((replace(row, image=image), side))
        except (RadiographError, OSError) as error:  # Pillow says OSError of a file that ends in its header
            skipped[row.image_id] = str(error).removeprefix(f"{row.image_id}: ")
        with seen.get_lock():
            seen.value += 1
    random.Random(f"{job.seed}/{job.parts[index]}").shuffle(prepared)
    write_shard(job.shards[index], prepared, skipped)


def _summary(shards: Iterable[Path]) -> tuple[int, dict[str, str]]:
    """Images in shards, and those that could not be read."""
    images = 0
    skipped: dict[str, str] = {}
    for shard in shards:
        count, unreadable = read_summary(shard)
        images, skipped = images + count, skipped | unreadable
    return images, skipped


def _write_skipped(path: Path, skipped: dict[str, str]) -> None:
    text = io.StringIO(newline="")
    write_csv(text, ["image_id", "reason"], sorted(skipped.items()))
    write_atomically(path, text.getvalue().encode())
