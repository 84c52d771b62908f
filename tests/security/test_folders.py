"""Archives that inflate without end and links in circles: an image that cannot be read, and a folder walked once."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from cxrfpn.data.sources import nih, open_source
from cxrfpn.prediction.inputs import InputError, find_radiographs

IMAGES = ("00000001_000", "00000002_000")


@pytest.fixture
def folder(tmp_path) -> Path:
    """The table of two images of the NIH."""
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    lines = [f"{image}.png,No Finding,0,{number},50,F,PA\n" for number, image in enumerate(IMAGES, start=1)]
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(header + "".join(lines))
    return tmp_path


def write_zip(path: Path, large: int, compression: int) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{IMAGES[0]}.png", bytes(large))
        archive.writestr(f"{IMAGES[1]}.png", b"an image")


def write_tar(path: Path, large: int) -> None:
    with gzip.open(path, "wb", 1) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for image, content in ((IMAGES[0], bytes(large)), (IMAGES[1], b"an image")):
            member = tarfile.TarInfo(f"{image}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_member_that_inflates_without_end_is_one_image_that_cannot_be_read(folder, monkeypatch, kind):
    monkeypatch.setattr(nih, "MAX_MEMBER_BYTES", 2**20)
    if kind == "zip":
        write_zip(folder / "images.zip", 2**20 + 1, zipfile.ZIP_DEFLATED)
    else:
        write_tar(folder / "images.tar.gz", 2**20 + 1)
    source = open_source(f"nih:{folder}")
    first, second = (row for part in source.parts() for row in source.rows(part))
    assert (first.image, first.error) == (b"", "the archive's member is larger than 1 MB")
    assert (second.image, second.error) == (b"an image", None)


def test_a_member_of_a_compression_without_a_limit_is_not_read(folder):
    write_zip(folder / "images.zip", 100, zipfile.ZIP_BZIP2)
    source = open_source(f"nih:{folder}")
    errors = [row.error for part in source.parts() for row in source.rows(part)]
    assert errors == 2 * ["its compression is not read; unpack the archive"]


def test_links_in_circles_are_walked_once(folder):
    inside = folder / "images" / "deep"
    inside.mkdir(parents=True)
    for image in IMAGES:
        (inside / f"{image}.png").write_bytes(b"an image")
    for name in ("a", "b", "c"):  # each doubles what a walk without memory would visit, 40 levels deep
        (inside / name).symlink_to(folder)
    source = open_source(f"nih:{folder}")
    assert [row.image_id for part in source.parts() for row in source.rows(part)] == list(IMAGES)


def test_a_glob_enters_no_circle_and_expands_as_a_shell_does(tmp_path, monkeypatch):
    for name in ("a.png", "deep/b.png", "deep/.hidden.png", ".cache/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"an image")
    for name in ("x", "y", "z"):
        (tmp_path / "deep" / name).symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)

    def found(pattern: str) -> list[str]:
        return [str(path) for path in find_radiographs([pattern]).radiographs]

    assert found("**") == found("**/*.png") == ["a.png", "deep/b.png"]
    assert found(f"{tmp_path}/**/b.*") == [f"{tmp_path}/deep/b.png"]
    assert found("*.png") == ["a.png"] and found("[ab].png") == ["a.png"] and found("d*/?.png") == ["deep/b.png"]
    assert found(".cache/*") == [".cache/c.png"] and found("*/.hid*") == ["deep/.hidden.png"]
    for pattern in ("nothing*", "a**b.png"):
        with pytest.raises(InputError):
            find_radiographs([pattern])
