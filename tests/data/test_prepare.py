"""Preparing: starved and fed rubbish, it still writes every image exactly once."""

import csv
import io
import os
import signal
import subprocess
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cxrfpn.data.augment import evaluation_view
from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.preparing import PrepareError, prepare, prepare_image
from cxrfpn.data.schema import METADATA_COLUMNS, Row, SourceError
from cxrfpn.data.shards import PreparedShards
from cxrfpn.data.sharpness import source_side
from image_processing_cxrfpn import CxrFpnImageProcessor
from radiograph_cxrfpn import read_radiograph

PARTS, IMAGES_A_PART = 12, 10


@dataclass(frozen=True)
class FolderSource:
    """A folder of parts, each a folder of images; and the part in which it fails, and how."""

    folder: Path
    fails_in: str = ""
    fails_by: str = "SourceError"
    name: str = "folder"

    def metadata(self) -> pd.DataFrame:
        ids = [path.stem for path in sorted(self.folder.glob("*/*.jpg"))]
        return pd.DataFrame({"image_id": ids}, columns=METADATA_COLUMNS)

    def parts(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def rows(self, part: str, wanted: Container[str] | None = None) -> Iterator[Row]:
        if part == self.fails_in:
            self._fail(part)
        for path in sorted((self.folder / part).iterdir()):
            yield Row(path.read_bytes(), path.stem, part, 60, "F", "PA", ("Mass",), split="train", fold=3)

    def _fail(self, part: str) -> None:
        if self.fails_by == "death":
            os.kill(os.getpid(), signal.SIGKILL)
        raise SourceError(f"part {part}: the server does not answer; try again later")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    folder = tmp_path_factory.mktemp("images")
    for part in range(PARTS):
        (folder / f"{part:02}").mkdir()
        for index in range(IMAGES_A_PART):
            (folder / f"{part:02}" / f"{part:02}_{index}.jpg").write_bytes(_jpeg(part * IMAGES_A_PART + index))
    return FolderSource(folder)


@pytest.fixture(scope="module")
def undisturbed(source: FolderSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "prepared"
    prepared = prepare(source, folder, size=32, processes=2)
    assert (prepared.images, prepared.skipped) == (PARTS * IMAGES_A_PART, {})
    return folder


def test_every_image_is_there_once_and_the_order_of_patients_is_broken_up(source, undisturbed):
    shards = PreparedShards(undisturbed)
    ids = shards.image_ids.to_pylist()
    assert sorted(ids) == source.metadata()["image_id"].tolist() and ids != sorted(ids)
    assert shards.size == 32 and len(shards.read_images(np.arange(len(shards)))) == len(shards)
    assert shards.metadata().iloc[0].drop(["image_id", "patient_id"]).to_dict() == {
        "age": 60, "sex": "F", "view_position": "PA", "findings": ("Mass",), "split": "train", "fold": 3,
    }  # fmt: skip


def test_nothing_is_done_twice(source, undisturbed):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("data/*")}
    prepare(source, undisturbed, size=32)
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.glob("data/*")}


def test_what_cannot_be_read_is_listed_with_its_reason(tmp_path):
    whole, black = _jpeg(0), _jpeg(0, black=True)
    broken = {"a": whole[:-20], "b": b"", "c": b"not an image", "d": black, "e": whole[:200], "f": whole}
    (tmp_path / "images" / "0").mkdir(parents=True)
    for name, content in broken.items():
        (tmp_path / "images" / "0" / f"{name}.jpg").write_bytes(content)
    prepared = prepare(FolderSource(tmp_path / "images"), tmp_path / "prepared", size=32)
    with (tmp_path / "prepared" / "skipped.csv").open() as file:
        listed = {row["image_id"]: row["reason"] for row in csv.DictReader(file)}
    assert prepared.images == 1 and listed == prepared.skipped and list(listed) == ["a", "b", "c", "d", "e"]
    for name, reason in zip("abcd", ("damaged", "empty", "not an image", "every pixel"), strict=True):
        assert reason in listed[name], listed
    assert PreparedShards(tmp_path / "prepared").skipped == listed


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [("SourceError", SourceError, "the server does not answer"), ("death", PrepareError, "a process died")],
)
def test_a_failure_is_one_line_and_what_was_done_stays(source, undisturbed, tmp_path, failure, error, message):
    failing = FolderSource(source.folder, fails_in="09", fails_by=failure)
    with pytest.raises(error, match=message) as caught:
        prepare(failing, tmp_path / "prepared", size=32, processes=1)
    assert "\n" not in str(caught.value)
    assert _count_shards(tmp_path) == 9
    prepare(source, tmp_path / "prepared", size=32)
    assert _contents(tmp_path / "prepared") == _contents(undisturbed)


def test_a_full_disk_is_one_line_and_the_folder_can_be_finished(source, undisturbed, small_disk, tmp_path):
    folder = small_disk("60k") / "prepared"
    with pytest.raises(PrepareError, match="the disk is full; make room and run the same command again"):
        prepare(source, folder, size=32, processes=1)
    assert 0 < len(list(folder.glob("data/*.parquet"))) < PARTS and not list(folder.glob("**/*.tmp"))
    small_disk("10m")
    prepare(source, folder, size=32)
    assert _contents(folder) == _contents(undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of a given size, or makes the one that is there that large."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(size: str) -> Path:
        again = "remount," if os.path.ismount(disk) else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "tmpfs", str(disk)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting a small disk is not allowed here")
        return disk

    yield mount
    if os.path.ismount(disk):
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("changed", [{"size": 64}, {"seed": 1}, {"name": "another"}])
def test_a_folder_started_otherwise_is_left_alone(source, undisturbed, changed):
    before = _contents(undisturbed)
    other = FolderSource(source.folder, name=changed.pop("name", source.name))
    with pytest.raises(SourceError, match="was started with .*; choose another folder"):
        prepare(other, undisturbed, **{"size": 32, **changed})
    assert _contents(undisturbed) == before


def test_a_folder_of_something_else_is_left_alone(source, tmp_path):
    (tmp_path / "thesis.tmp").write_text("years of work")
    with pytest.raises(SourceError, match="is not empty"):
        prepare(source, tmp_path, size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tmp"]


def test_a_source_that_gives_less_than_it_lists_is_refused(source, tmp_path):
    class Forgetful(FolderSource):
        def metadata(self) -> pd.DataFrame:
            return pd.concat([super().metadata()] * 2)

    (tmp_path / "images" / "00").mkdir(parents=True)
    (tmp_path / "images" / "00" / "a.jpg").write_bytes(_jpeg(0))
    prepare(FolderSource(tmp_path / "images"), tmp_path / "prepared", size=32)
    with pytest.raises(SourceError, match="lists 2 images and gave 1"):
        prepare(Forgetful(tmp_path / "images"), tmp_path / "prepared", size=32)


def test_reduced_decoding_differs_by_less_than_a_grey_level(nih_mini):
    """Against Pillow's decoding of the whole JPEG and its antialiased resize."""
    errors = []
    for path in sorted((nih_mini / "originals").glob("*.png")):
        data = _as_jpeg(read_radiograph(path).pixels)
        full = Image.fromarray(read_radiograph(data).pixels).resize((256, 256), Image.Resampling.BILINEAR)
        prepared = np.asarray(Image.open(io.BytesIO(prepare_image(data, path.name, 256)[0])))
        errors.append(np.abs(prepared.astype(float) - np.asarray(full)).mean())
    assert len(errors) >= 10 and np.mean(errors) < 1, errors


@pytest.mark.parametrize("form", ["PNG", "JPEG", "array"])
@pytest.mark.parametrize("sides", [(300, 260), (1600, 1500)])  # under 256 pixels, ranges are measured otherwise
def test_the_network_sees_in_a_prepared_image_the_very_pixels_of_the_file(drawing, form, sides):
    """Read by the pipeline, from the file or from its prepared twin, and by training, which evaluates on the twin."""
    processor = CxrFpnImageProcessor(size={"height": 112, "width": 112}, prepared_size=128)
    grey = np.asarray(Image.fromarray(drawing // 2 + 30).resize(sides))
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG" if form == "array" else form)
    prepared, side = prepare_image(file.getvalue(), "film", 128)
    assert side == min(sides) == source_side(prepared, grey)
    seen = processor(grey if form == "array" else file.getvalue())["pixel_values"]
    assert torch.equal(processor(prepared)["pixel_values"], seen)
    stored = cv2.imdecode(np.frombuffer(prepared, np.uint8), cv2.IMREAD_GRAYSCALE)
    torch.testing.assert_close(evaluation_view(torch.from_numpy(stored)[None], 112), seen)


def test_a_prepared_image_is_never_stretched_again():
    rough = np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)  # shrunk, it spans fewer grey levels
    once, _ = prepare_image(_as_jpeg(rough), "film", 64)
    stored = np.asarray(Image.open(io.BytesIO(once)))
    assert stored.max() - stored.min() < 255
    np.testing.assert_array_equal(read_radiograph(once).pixels, stored)
    np.testing.assert_array_equal(read_radiograph(prepare_image(once, "again", 64)[0]).pixels, stored)


def test_training_and_validation_images_are_stored_alike(tmp_path):
    """Without loss: a network learns the traces of a compression, and fails where they are missing."""
    prepare(PhantomSource(60), tmp_path, size=64, processes=1)
    shards = PreparedShards(tmp_path)
    assert set(shards.metadata()["split"]) == {"train", "test"}
    images = shards.read_images(np.arange(len(shards))).values()
    assert {bytes(data[1:4]) for data in images} == {b"PNG"}


def _jpeg(seed: int, black: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8) * (not black)
    return _as_jpeg(np.kron(pixels, np.ones((8, 8), np.uint8)))


def _as_jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def _count_shards(folder: Path) -> int:
    return len(list(folder.glob("prepared/data/*.parquet")))


def _contents(folder: Path) -> dict[str, bytes]:
    assert all(pq.read_metadata(path).num_rows for path in folder.glob("data/*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("**/*") if path.is_file()}
