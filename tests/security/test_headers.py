"""Files whose headers would cost seconds or gigabytes are refused, or read, at the price of an honest file."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

import decoding_cxrfpn
from decoding_cxrfpn import decode_apart
from pixels_cxrfpn import RadiographError
from radiograph_cxrfpn import PREPARED, read_radiograph
from tests.hardening.corpus import png
from tests.hardening.dicoms import encapsulated, make_dicom, stored

# Parts of an attack: some three times as many as are allowed. Building a million would cost more than refusing them.
MANY = 200_000


def encoded(pixels: np.ndarray, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def tiff(entries: dict[int, tuple[int, int, int]], behind: bytes = b"", is_big: bool = False) -> bytes:
    """A TIFF of one directory: tag -> type, count, value or place; what lies behind the directory is at place 65536."""
    if is_big:
        head = b"II+\0\10\0\0\0" + struct.pack("<QQ", 16, len(entries))
        directory = b"".join(struct.pack("<HHQQ", tag, *entry) for tag, entry in entries.items())
    else:
        head = b"II*\0" + struct.pack("<IH", 8, len(entries))
        directory = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in entries.items())
    return (head + directory + bytes(8)).ljust(65536, b"\0") + behind


def strips(width: int, height: int, count: int, is_big: bool = False) -> bytes:
    """A TIFF of one-row strips, whose places and lengths are the same zeros."""
    sizes = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    return tiff({**sizes, 273: (4, count, 65536), 277: (3, 1, 1), 278: (4, 1, 1)}, bytes(4 * count), is_big)


def with_parts(jpeg: bytes, parts: bytes) -> bytes:
    return jpeg[:2] + parts + jpeg[2:]


def scans(pixels: np.ndarray, count: int) -> bytes:
    """A progressive JPEG with so many scans more, which hold nothing."""
    jpeg = encoded(pixels, "JPEG", progressive=True)
    return jpeg[:-2] + count * b"\xff\xda\0\x08\1\1\0\1\x3f\0" + b"\xff\xd9"


def exif(entries: int, length: int) -> bytes:
    """Camera data of so many entries that all point to the same bytes."""
    directory = b"".join(struct.pack("<HHII", 40_000 + tag, 7, length, 12 * entries + 14) for tag in range(entries))
    return b"II*\0" + struct.pack("<IH", 8, entries) + directory + bytes(4) + bytes(length)


def elements(pixels: np.ndarray, count: int, is_deflated: bool = False) -> bytes:
    """A DICOM with so many empty elements behind its pixels."""
    tags = ((0xFFF1 - 2 * (index >> 15), 0x8000 | (index & 0x7FFF)) for index in range(count))
    empty = b"".join(struct.pack("<HH2sH", *tag, b"LO", 0) for tag in tags)
    if not is_deflated:
        return stored(make_dicom(pixels, 8)) + empty
    data = stored(make_dicom(pixels, 8, DeflatedExplicitVRLittleEndian))
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return data[:start] + deflate.compress(zlib.decompress(data[start:], -zlib.MAX_WBITS) + empty) + deflate.flush()


REFUSED: dict[str, tuple[Callable[[np.ndarray], bytes], str]] = {
    "TIFF of many strips": (lambda _: strips(1, MANY, MANY), "built of more than 70,000 parts"),
    "TIFF of strips that it has not": (lambda _: strips(50, 50, 2 * MANY), "built of more than 70,000 parts"),
    "BigTIFF of many strips": (lambda _: strips(60, 60, MANY, is_big=True), "built of more than 70,000 parts"),
    "TIFF whose entries overlap": (
        lambda _: tiff({256: (3, 1, 9), 257: (3, 1, 9)} | {tag: (7, 2**22, 65536) for tag in range(40_000, 41_000)},
                       bytes(2**22)),
        "overlap",
    ),
    "TIFF without a size": (lambda _: tiff({257: (4, 1, 9), 273: (4, 9, 65536)}), "no directory of a TIFF"),
    "PNG of many chunks": (
        lambda _: png(64, 64, *[(b"tEXt", b"a\0")] * MANY, (b"IDAT", zlib.compress(bytes(65 * 64)))),
        "built of more than 70,000 parts",
    ),
    "PNG of empty pixels": (lambda _: png(64, 64, *[(b"IDAT", b"")] * MANY), "built of more than 70,000 parts"),
    "PNG whose camera data overlap": (
        lambda _: png(64, 64, (b"eXIf", exif(20_000, 2**21)), (b"IDAT", zlib.compress(bytes(65 * 64)))),
        "camera data are longer",
    ),
    "JPEG of many markers": (
        lambda pixels: with_parts(encoded(pixels, "JPEG"), 2 * MANY * b"\xff\xe9\0\2"),
        "built of more than 70,000 parts",
    ),
    "JPEG of padding": (
        lambda pixels: with_parts(encoded(pixels, "JPEG"), 8_000_000 * b"\xff"), "built of more than 70,000 parts"
    ),
    "JPEG of tables": (
        lambda pixels: with_parts(encoded(pixels, "JPEG"), 9000 * (b"\xff\xdb\0\x43\0" + bytes(range(1, 65)))),
        "header is longer",
    ),
    "JPEG of 2,000 scans": (lambda pixels: scans(np.tile(pixels, (8, 8)), 2000), "a JPEG of 20.. scans is not read"),
    "JPEG of 86 scans of 64 megapixels": (
        lambda pixels: with_size(scans(pixels, 80), 8000, 8000), "a JPEG of 86 scans is not read"
    ),
    "DICOM of many elements": (lambda pixels: elements(pixels, MANY), "more elements than a radiograph"),
    "deflated DICOM of many elements": (
        lambda pixels: elements(pixels, MANY, is_deflated=True), "more elements than a radiograph"
    ),
    "DICOM with a JPEG of many markers": (
        lambda pixels: stored(
            encapsulated(pixels, JPEGBaseline8Bit, with_parts(encoded(pixels, "JPEG"), MANY * b"\xff\xe9\0\2"))
        ),
        "built of more than 70,000 parts",
    ),
    "DICOM with a JPEG of 2,000 scans": (
        lambda pixels: stored(encapsulated(pixels, JPEGBaseline8Bit, scans(pixels, 2000))),
        "a JPEG of 20.. scans is not read",
    ),
    "WebP of many chunks": (
        lambda pixels: encoded(pixels, "WEBP") + MANY * b"ABCD\0\0\0\0", "built of more than 70,000 parts"
    ),
}  # fmt: skip

READ: dict[str, Callable[[np.ndarray], bytes]] = {
    "JPEG of junk": lambda pixels: with_parts(encoded(pixels, "JPEG"), b"\xff\xfe\0\2" + bytes(8_000_000)),
    "JPEG whose camera data overlap": lambda pixels: with_parts(
        encoded(pixels, "JPEG"), 100 * (b"\xff\xe1\xff\xff" + (b"Exif\0\0" + exif(2000, 40_000)).ljust(65533, b"\0"))
    ),
    "JPEG of Photoshop's": lambda pixels: with_parts(
        encoded(pixels, "JPEG"),
        100 * (b"\xff\xed\xff\xff" + (b"Photoshop 3.0\0" + 6000 * b"8BIM\1\2\0\0\0\0\0\0")[:65533]),
    ),
    "TIFF of a strip a row": lambda pixels: encoded(np.tile(pixels, (20, 1)), "TIFF", strip_size=160),
    "JPEG of 30 scans": lambda pixels: scans(pixels, 20),
}


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its frame's header."""
    place = jpeg.index(b"\xff\xc2") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


@pytest.fixture(autouse=True)
def tight_limits(monkeypatch, drawing):
    """Time and memory that honest files of this size need several times over, and that the attacks used to exceed."""
    read_radiograph(stored(make_dicom(drawing, 8)), "x.dcm")  # a worker imports pydicom, which counts for its time
    monkeypatch.setattr(decoding_cxrfpn, "limits_of", lambda _: {"cpu_seconds": 2, "memory": 2**29})


@pytest.mark.parametrize("attack", REFUSED)
def test_an_expensive_header_is_refused_at_once(drawing, attack):
    make, said = REFUSED[attack]
    data = make(drawing)
    with pytest.raises(RadiographError, match=f"^x: .*{said}"):
        decode_apart(data, "x", None)
    with pytest.raises(RadiographError, match=f"^x: .*{said}"):
        read_radiograph(data, "x")


@pytest.mark.parametrize("kind", READ)
def test_a_strange_header_is_read_at_once(drawing, kind):
    pixels, _ = decode_apart(READ[kind](drawing), "x", None)
    assert np.abs(pixels[: len(drawing)].astype(int) - drawing).mean() < 4


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_picture_is_still_turned(drawing, form):
    """What says how to turn it is among the parts that are kept."""
    camera = Image.Exif()
    camera[274] = 6  # to be turned clockwise
    data = encoded(drawing, form, exif=camera, **({"lossless": True} if form == "WEBP" else {}))
    assert np.abs(read_radiograph(data, "x").pixels.astype(int) - np.rot90(drawing, -1)).mean() < 3


@pytest.mark.parametrize("profile", ["tEXt", "zTXt"])
def test_a_picture_is_turned_by_the_profile_of_old_programs(drawing, profile):
    camera = b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 274, 3, 1, 6) + bytes(4)
    text = b"\nexif\n%8d\n" % len(camera) + camera.hex().encode()
    key = b"Raw profile type exif\0"
    chunk = (b"tEXt", key + text) if profile == "tEXt" else (b"zTXt", key + b"\0" + zlib.compress(text))
    rows = b"".join(b"\0" + row.tobytes() for row in drawing)
    data = png(drawing.shape[1], drawing.shape[0], chunk, (b"IDAT", zlib.compress(rows)))
    assert np.array_equal(read_radiograph(data, "x").pixels, np.rot90(drawing, -1))


def test_a_prepared_image_is_still_known_as_one(drawing):
    """By its comment, without which its grey levels would be stretched a second time."""
    info = PngInfo()
    info.add_text("comment", PREPARED)
    for data in (encoded(drawing // 2, "PNG", pnginfo=info), encoded(drawing // 2, "JPEG", comment=PREPARED)):
        assert abs(int(read_radiograph(data, "x").pixels.max()) - (drawing // 2).max()) < 4
