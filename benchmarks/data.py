"""What keeps a network waiting: radiographs on their way into batches, and into prepared shards. On one core each."""

import io
import json
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from benchmarks.ratio import Row, time_ratio
from cxrfpn.data import schema
from cxrfpn.data.augment import Augmentation, augment, draw_parameters
from cxrfpn.data.loading import Loader
from cxrfpn.data.phantom import draw_phantom
from cxrfpn.data.preparing import prepare, prepare_image
from cxrfpn.data.shards import MANIFEST, SHARD_FOLDER, PreparedShards, shard_paths, write_shard
from cxrfpn.data.sources import open_source
from cxrfpn.data.streaming import StreamedImages
from image_processing_cxrfpn import CxrFpnImageProcessor

RADIOGRAPHS = 32
SIDE, PREPARED_SIDE, INPUT_SIDE = 1024, 256, 224
# Phantoms then weigh some 180 KB, as much as the radiographs that are streamed.
JPEG_QUALITY = 90


def measure() -> list[Row]:
    """Phantoms of NIH's own size, as the PNGs that the NIH gives away and the JPEGs that are streamed."""
    radiographs = [draw_phantom(np.random.default_rng(seed), side=SIDE)[0] for seed in range(RADIOGRAPHS)]
    with tempfile.TemporaryDirectory() as folder, one_core():
        jpegs = [_encoded(pixels, "JPEG") for pixels in radiographs]
        return [_loading(radiographs, Path(folder)), _preparing(jpegs), _streaming(jpegs, Path(folder) / "streamed")]


def _loading(radiographs: list[np.ndarray], folder: Path) -> Row:
    files = []
    for index, pixels in enumerate(radiographs):
        files.append(folder / f"{index}.png")
        files[-1].write_bytes(_encoded(pixels, "PNG"))
    loader, epochs = _loader(files, folder / "prepared"), iter(range(1000))

    def ours() -> None:
        for batch in loader.batches(epoch := next(epochs)):
            augment(batch.pixels, draw_parameters(Augmentation(), len(batch), 0, epoch, batch.first), INPUT_SIDE)

    transform = _report_transform()

    def theirs() -> None:
        for start in range(0, RADIOGRAPHS, loader.batch_size):
            torch.stack([transform(_opened(file)) for file in files[start : start + loader.batch_size]])

    ratio, mine, other = time_ratio(ours, theirs, rounds=5)
    return Row(
        "prepared shard to augmented batch / 1024 px PNG, PIL and torchvision image by image (the report's way)",
        ratio,
        1 / 20,
        f"({RADIOGRAPHS / mine:.0f} / {RADIOGRAPHS / other:.0f} images/s)",
    )


def _streaming(files: list[bytes], folder: Path) -> Row:
    """Read an epoch without a local copy; what the network would add is the wait for the bytes."""
    rows = [schema.Row(file, f"{row:04}", f"{row:04}", 60, "F", "PA", ()) for row, file in enumerate(files)]
    folder.mkdir()
    write_shard(folder / "train.parquet", [(row, SIDE) for row in rows], {})
    source = open_source(f"parquet:{folder}")
    prepare(source, folder / "prepared", PREPARED_SIDE, processes=1)
    plan = pd.DataFrame({"image_id": [row.image_id for row in rows], "split": "train", "copies": 1, "mirrored": 0})
    streamed, prepared = (
        Loader(images, plan, "train", batch_size=32, workers=1)
        for images in (StreamedImages([source], PREPARED_SIDE, workers=1), PreparedShards(folder / "prepared"))
    )
    epochs = iter(range(1000))

    def ours() -> None:
        deque(streamed.batches(next(epochs)), maxlen=0)

    def theirs() -> None:
        deque(prepared.batches(next(epochs)), maxlen=0)

    ratio, mine, other = time_ratio(ours, theirs, rounds=5)
    return Row(
        "an epoch streamed from 1024 px JPEGs (prepared: none) / the same epoch from prepared shards",
        ratio,
        20,
        f"({RADIOGRAPHS / mine:.0f} / {RADIOGRAPHS / other:.0f} images/s)",
    )


def _preparing(files: list[bytes]) -> Row:
    def theirs() -> None:
        for file in files:
            with Image.open(io.BytesIO(file)) as image:
                image.resize((PREPARED_SIDE, PREPARED_SIDE))

    def ours() -> None:
        for file in files:
            prepare_image(file, "phantom", PREPARED_SIDE)

    ratio, mine, other = time_ratio(ours, theirs, rounds=5)
    return Row(
        "preparing a 1024 px JPEG, encoding included / PIL's whole decoding and resize, as it does them by itself",
        ratio,
        1 / 2.5,
        f"({RADIOGRAPHS / mine:.0f} / {RADIOGRAPHS / other:.0f} images/s)",
    )


def _report_transform() -> v2.Compose:
    side = round(0.9 * SIDE)
    return v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomCrop(side),
            v2.Resize(INPUT_SIDE),
            v2.RandomAffine(7, translate=(0.06, 0.06), interpolation=InterpolationMode.BILINEAR),
            v2.RandomApply([v2.GaussianBlur(3, (0.2, 1.5))], p=0.4),
            v2.Normalize(CxrFpnImageProcessor.image_mean, CxrFpnImageProcessor.image_std),
        ]
    )


def _opened(file: Path) -> Image.Image:
    """As the networks of torchvision are fed: in RGB."""
    with Image.open(file) as image:
        return image.convert("RGB")


def _loader(files: list[Path], folder: Path) -> Loader:
    """Prepare shards of the files as prepare.py would, and return a loader of all of them."""
    (folder / SHARD_FOLDER).mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({"source": "drawn", "size": PREPARED_SIDE, "seed": 0, "parts": ["all"]}))
    prepared = [prepare_image(file.read_bytes(), file.name, PREPARED_SIDE)[0] for file in files]
    rows = [
        (schema.Row(image, file.stem, file.stem, 60, "F", "PA", ()), SIDE)
        for image, file in zip(prepared, files, strict=True)
    ]
    write_shard(shard_paths(folder, 1)[0], rows, {})
    plan = pd.DataFrame({"image_id": [row.image_id for row, _ in rows], "split": "train", "copies": 1, "mirrored": 0})
    return Loader(PreparedShards(folder), plan, "train", batch_size=32, workers=1)


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=JPEG_QUALITY)
    return file.getvalue()


@contextmanager
def one_core() -> Iterator[None]:
    """Everything, threads that are started included, on one core."""
    threads, cores = (torch.get_num_threads(), cv2.getNumThreads()), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
