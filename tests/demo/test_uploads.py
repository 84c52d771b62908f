"""What visitors may upload: sizes, counts, names, zip bombs. All is refused in one line, before it is decoded."""

import io
import os
import struct
import tempfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import uploads
from demo.sweeping import sweep, upload_folder
from demo.uploads import Batch, UploadError, clean_name, read_upload


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_radiograph_comes_through_unchanged(tmp_path, drawing):
    path = tmp_path / "a.png"
    path.write_bytes(png(drawing))
    assert read_upload(path).data == path.read_bytes()


def test_a_file_that_is_too_large_is_refused_unread(tmp_path, monkeypatch, drawing):
    path = tmp_path / "a.png"
    path.write_bytes(png(drawing))
    monkeypatch.setattr(uploads, "MAX_FILE_BYTES", 100)
    with pytest.raises(UploadError, match="larger than"):
        read_upload(path)


def test_an_upload_that_was_swept_is_told_so_without_its_path(tmp_path):
    with pytest.raises(UploadError, match="^gone.png: the upload is gone.* 5 minutes") as caught:
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


def test_a_zip_is_read_in_memory_under_any_names(tmp_path, drawing):
    outside = tmp_path / "evil.png"
    good, rest = ("../evil.png", "/etc/a.png", "deep/b.png"), ("__MACOSX/._b.png", ".DS_Store", "empty/")
    members = dict.fromkeys(good, png(drawing)) | dict.fromkeys(rest, b"")
    path = zipped(tmp_path / "ward.zip", members)
    assert [upload.name for upload in Batch([path])] == ["evil.png", "a.png", "b.png"]
    assert len(Batch([path])) == 3
    assert not outside.exists() and sorted(tmp_path.iterdir()) == [path]


def test_a_zip_bomb_is_a_row_and_the_others_go_on(tmp_path, monkeypatch, drawing):
    monkeypatch.setattr(uploads, "MAX_FILE_BYTES", 2**20)
    path = zipped(tmp_path / "bomb.zip", {"bomb.png": bytes(50 * 2**20), "good.png": png(drawing)})
    assert path.stat().st_size < 2**20
    bomb, good = Batch([path])
    assert "larger than" in bomb.error and not bomb.data
    assert good.error is None


def test_many_bombs_together_are_stopped(tmp_path, monkeypatch, drawing):
    monkeypatch.setattr(uploads, "MAX_BATCH_BYTES", 3 * len(png(drawing)))
    path = zipped(tmp_path / "many.zip", {f"{number}.png": png(drawing) for number in range(10)})
    with pytest.raises(UploadError, match="together"):
        list(Batch([path]))


def test_what_is_refused_counts_too(tmp_path, monkeypatch, drawing):
    """200 members of 64 MB each, all of them refused, would inflate to 12 GB."""
    monkeypatch.setattr(uploads, "MAX_FILE_BYTES", 2**20)
    monkeypatch.setattr(uploads, "MAX_BATCH_BYTES", 5 * 2**20)
    path = zipped(tmp_path / "bombs.zip", {f"{number}.png": bytes(2 * 2**20) for number in range(9)})
    batch, refused = iter(Batch([path])), []
    with pytest.raises(UploadError, match="together"):
        for upload in batch:
            refused.append(upload)
    assert len(refused) == 2 and all("larger than" in upload.error for upload in refused)  # 2 MB of each are inflated


def test_refused_files_count_too(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BATCH_BYTES", 25)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        path.write_bytes(b"no picture")
    with pytest.raises(UploadError, match="together"):
        list(Batch(paths))


def test_more_than_200_files_are_refused_before_one_is_read(tmp_path):
    path = zipped(tmp_path / "many.zip", {f"{number}.png": b"x" for number in range(201)})
    with pytest.raises(UploadError, match="201 files are more than 200"):
        Batch([path])


def test_a_damaged_or_locked_member_is_a_row(tmp_path, drawing):
    path = zipped(tmp_path / "a.zip", {"bad.png": png(drawing) * 3, "good.png": png(drawing)})
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    bad, good = Batch([path])
    assert "cannot be unpacked" in bad.error and good.error is None


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_compression_that_cannot_be_stopped_is_a_row(tmp_path, drawing, compression):
    """600 bytes of bzip2 inflate to 600 MB at one go; damaged LZMA raises an error of its own."""
    path = zipped(tmp_path / "a.zip", {"bomb.png": bytes(600 * 2**20)}, compression)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", png(drawing))
    tracemalloc.start()
    bomb, good = Batch([path])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "bomb.png: its compression is not taken" in bomb.error and good.error is None
    assert most < 16 * 2**20


@pytest.mark.parametrize("flaw", ["truncated", "name"])
def test_any_error_of_zipfile_on_a_damaged_member_is_a_row(tmp_path, drawing, flaw):
    path = zipped(tmp_path / "a.zip", {"good.png": png(drawing), "bad.png": png(drawing)})
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("bad.png").header_offset
    data = bytearray(path.read_bytes())
    if flaw == "truncated":  # EOFError
        data = data.replace(struct.pack("<L", start) + b"bad.png", struct.pack("<L", len(data) - 30) + b"bad.png")
    else:  # UnicodeDecodeError
        data[start + 7] |= 0x08
        data[start + 30 : start + 37] = b"\xff" * 7
    path.write_bytes(data)
    rows = list(Batch([path]))
    assert "cannot be unpacked" in rows[-1].error and len(rows) == 2


def test_a_zip_that_lists_a_million_entries_is_refused_before_it_is_listed(tmp_path):
    path = zipped(tmp_path / "million.zip", {"__MACOSX/a": b""})
    data = path.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entries = data[start:end] * 1_000_000
    size = struct.pack(
        "<L", len(entries)
    )  # zipfile goes by the size, and does not ask how many entries there are said to be
    path.write_bytes(data[:start] + entries + data[end : end + 12] + size + data[end + 16 :])
    began = time.monotonic()
    with pytest.raises(UploadError, match="^million.zip: zips of more than 2000 entries"):
        Batch([path])
    assert time.monotonic() - began < 2


def test_entries_of_all_zips_together_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_ENTRIES", 5)
    path = zipped(tmp_path / "a.zip", {".a": b"", ".b": b"", "c/": b""})
    assert len(Batch([path])) == 0
    with pytest.raises(UploadError, match="entries"):
        Batch([path, path])


def test_a_zip_that_is_swept_while_it_waits_keeps_its_rows(tmp_path, drawing):
    path = zipped(tmp_path / "ward.zip", {"a.png": png(drawing), "b.png": png(drawing)})
    batch = Batch([path])
    path.unlink()
    rows = list(batch)
    assert len(rows) == len(batch) == 2
    assert all("the upload is gone" in row.error for row in rows)


def test_a_zip_that_is_swept_while_it_is_read_ends_there(tmp_path, drawing):
    path = zipped(tmp_path / "ward.zip", {"a.png": png(drawing), "b.png": png(drawing), "c.png": png(drawing)})
    rows = iter(Batch([path]))
    assert next(rows).error is None
    path.unlink()
    assert ["the upload is gone" in row.error for row in rows] == [True, True]


def test_a_folder_for_uploads_goes_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    with upload_folder() as folder:
        assert folder.parent == tmp_path and os.environ["GRADIO_TEMP_DIR"] == str(folder)
        (folder / "hash").mkdir()
        (folder / "hash" / "new.png").write_bytes(b"x")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("named", [True, False])
def test_every_temporary_file_lies_in_the_folder_that_is_swept(tmp_path, monkeypatch, named):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "named")) if named else monkeypatch.delenv(
        "GRADIO_TEMP_DIR", raising=False
    )
    with upload_folder() as folder:
        number, path = tempfile.mkstemp()
        os.close(number)
        assert Path(path).parent == folder
    assert tempfile.gettempdir() == str(tmp_path)


def test_a_folder_that_somebody_named_stays_and_no_other_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    named = tmp_path / "named"
    named.mkdir()
    (named / "theirs.txt").write_bytes(b"x")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(named))
    with upload_folder() as folder:
        assert folder == named
    assert os.listdir(tmp_path) == ["named"] and os.listdir(named) == ["theirs.txt"]


def test_sweeping_takes_what_is_old_and_nothing_else(tmp_path):
    (tmp_path / "hash").mkdir()
    (tmp_path / "hash" / "old.png").write_bytes(b"x")
    time.sleep(0.3)
    (tmp_path / "new.png").write_bytes(b"x")
    sweep(tmp_path, live=0.2)
    assert sorted(path.name for path in tmp_path.rglob("*")) in (["hash", "new.png"], ["new.png"])
    sweep(tmp_path, live=-1)
    assert not os.listdir(tmp_path)
