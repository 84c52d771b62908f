"""What strangers may send: sizes, counts, names, bombs. Everything is refused in one line, before it is decoded."""

import io
import os
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import uploads
from demo.sweeping import sweep
from demo.uploads import UploadError, check_header, clean_name, count_batch, read_batch, read_upload


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_radiograph_comes_through_unchanged(tmp_path, drawing):
    path = tmp_path / "a.png"
    path.write_bytes(png(drawing))
    assert read_upload(path).data == path.read_bytes()


def test_too_many_pixels_are_refused_on_the_header():
    with pytest.raises(UploadError, match="bomb.png: 60000 x 60000 pixels are more than 30 million"):
        check_header(png_that_claims(60000, 60000), "bomb.png")


def test_too_many_pixels_of_a_dicom_are_refused_on_the_header(dicom):
    with pytest.raises(UploadError, match="60000 x 60000 pixels"):
        check_header(dicom(Rows=60000, Columns=60000), "bomb.dcm")


def test_a_dicom_that_inflates_as_a_whole_is_refused_unread(dicom):
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with pytest.raises(UploadError, match="deflated"):
        check_header(dicom(syntax=DeflatedExplicitVRLittleEndian, Rows=10, Columns=10), "bomb.dcm")


def test_formats_that_run_programs_are_no_images():
    file = io.BytesIO()
    Image.new("L", (20, 20), 99).save(file, "EPS")
    with pytest.raises(UploadError, match="not an image"):
        check_header(file.getvalue(), "page.png")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path, monkeypatch, drawing):
    path = tmp_path / "a.png"
    path.write_bytes(png(drawing))
    monkeypatch.setattr(uploads, "MAX_FILE_BYTES", 100)
    with pytest.raises(UploadError, match="larger than"):
        read_upload(path)


def test_an_upload_that_was_swept_is_told_so_without_its_path(tmp_path):
    with pytest.raises(UploadError, match="^gone.png: the upload is gone") as caught:
        read_upload(tmp_path / "gone.png")
    assert "/" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\ward\\a.png", "a.png"),
        ("a\x00\n\x1b[31mb.png", "a   [31mb.png"),
        ("x" * 200 + ".png", "x" * 76 + ".png"),
        ("a\u202egnp.png", "a gnp.png"),  # right-to-left override: a name that lies about its end
        ("", "file"),
    ],
)
def test_names_are_shown_without_paths_and_controls(name, cleaned):
    assert clean_name(name) == cleaned


def test_a_zip_is_read_in_memory_whatever_its_names(tmp_path, drawing):
    outside = tmp_path / "evil.png"
    good, rest = ("../evil.png", "/etc/a.png", "deep/b.png"), ("__MACOSX/._b.png", ".DS_Store", "empty/")
    members = dict.fromkeys(good, png(drawing)) | dict.fromkeys(rest, b"")
    path = zipped(tmp_path / "ward.zip", members)
    assert [upload.name for upload in read_batch([path])] == ["evil.png", "a.png", "b.png"]
    assert count_batch([path]) == 3
    assert not outside.exists() and sorted(tmp_path.iterdir()) == [path]


def test_a_zip_bomb_is_a_row_and_the_others_go_on(tmp_path, monkeypatch, drawing):
    monkeypatch.setattr(uploads, "MAX_FILE_BYTES", 2**20)
    path = zipped(tmp_path / "bomb.zip", {"bomb.png": bytes(50 * 2**20), "good.png": png(drawing)})
    assert path.stat().st_size < 2**20
    bomb, good = read_batch([path])
    assert "larger than" in bomb.error and not bomb.data
    assert good.error is None


def test_many_bombs_together_are_stopped(tmp_path, monkeypatch, drawing):
    monkeypatch.setattr(uploads, "MAX_BATCH_BYTES", 3 * len(png(drawing)))
    path = zipped(tmp_path / "many.zip", {f"{number}.png": png(drawing) for number in range(10)})
    with pytest.raises(UploadError, match="together"):
        list(read_batch([path]))


def test_more_than_200_files_are_refused_before_one_is_read(tmp_path):
    path = zipped(tmp_path / "many.zip", {f"{number}.png": b"x" for number in range(201)})
    with pytest.raises(UploadError, match="201 files are more than 200"):
        next(read_batch([path]))


def test_a_damaged_or_locked_member_is_a_row(tmp_path, drawing):
    path = zipped(tmp_path / "a.zip", {"bad.png": png(drawing) * 3, "good.png": png(drawing)})
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    bad, good = read_batch([path])
    assert "cannot be unpacked" in bad.error and good.error is None


def test_sweeping_takes_what_is_old_and_nothing_else(tmp_path):
    (tmp_path / "hash").mkdir()
    (tmp_path / "hash" / "old.png").write_bytes(b"x")
    time.sleep(0.3)
    (tmp_path / "new.png").write_bytes(b"x")
    sweep(tmp_path, live=0.2)
    assert sorted(path.name for path in tmp_path.rglob("*")) in (["hash", "new.png"], ["new.png"])
    sweep(tmp_path, live=-1)
    assert not os.listdir(tmp_path)
