"""Over 300 files that people and their software might send, good and bad, drawn from a seed; nothing lies on disk.

    corpus = make_corpus()                 # {file name: File}
    good = [name for name, file in corpus.items() if file.is_good]

The DICOM files are made next door, in dicoms.py.
"""

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.hardening.dicoms import broken_dicoms, deflated_zeros, sound_dicoms

SEED = 14
HEIGHT, WIDTH = 96, 80
FLIPS = 9


@dataclass(frozen=True)
class File:
    """A file's bytes, and whether it has to be read (True), refused (False), or may be either, in good order (None)."""

    data: bytes
    is_good: bool | None = None


def drawing(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Two dark lungs in a grey body with grain, [height,width] uint8 from 0 to 255."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    lungs = sum(np.exp(-(((x - cx) / 0.14) ** 2 + ((y - 0.5) / 0.3) ** 2)) for cx in (0.28, 0.72))
    level = 1.2 - 0.9 * lungs - 0.5 * np.abs(x - 0.5) + np.random.default_rng(SEED).normal(0, 0.02, (height, width))
    return np.rint(255 * (level - level.min()) / (level.max() - level.min())).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, colour: int = 0) -> bytes:
    """Make a PNG that promises any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = chunks or ((b"IDAT", zlib.compress(bytes(1000))),)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in ((b"IHDR", header), *pixels, (b"IEND", b"")))


def tiff(values: np.ndarray, photometric: int, order: str = "<") -> bytes:
    """An uncompressed TIFF of one strip, written by hand: either polarity, every depth, sign and order of bytes."""
    values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder(order)))
    (height, width), sample_format = values.shape, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = (
        (256, width), (257, height), (258, 8 * values.dtype.itemsize), (259, 1), (262, photometric), (273, 8), (277, 1),
        (278, height), (279, values.nbytes), (339, sample_format),
    )  # fmt: skip
    directory = struct.pack(f"{order}H", len(tags))
    for tag, value in tags:
        if tag in (273, 279):
            directory += struct.pack(f"{order}HHII", tag, 4, 1, value)  # LONG
        else:
            directory += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)  # SHORT
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", 8 + values.nbytes) + values.tobytes() + directory + bytes(4)


def numpy_file(array: np.ndarray) -> bytes:
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zeros(count: int) -> bytes:
    """A zlib stream of so many zero bytes; of zeros alone, the two halves of Adler-32 are the count and one."""
    return b"\x78\x9c" + deflated_zeros(count) + struct.pack(">HH", count % 65521, 1)


def make_corpus(seed: int = SEED) -> dict[str, File]:
    """Every file of the corpus, by name; the same for the same seed."""
    random = np.random.default_rng(seed)
    sound = sound_pictures() | {f"{name}.dcm": data for name, data in sound_dicoms(drawing()).items()}
    corpus = {f"sound_{name}": File(data, is_good=True) for name, data in sound.items()}
    for name in DAMAGED:
        corpus |= {f"cut_{tenth}0_{name}": File(data) for tenth, data in truncations(sound[name])}
        corpus |= {f"flip_{turn}_{name}": File(flip(sound[name], random)) for turn in range(FLIPS)}
    corpus |= {f"shape_{name}": file for name, file in shapes().items()}
    corpus |= {f"claim_{name}": File(data, is_good=False) for name, data in claims().items()}
    corpus |= {f"frames_{name}": File(data, is_good=False) for name, data in several_frames().items()}
    corpus |= {f"bomb_{name}": File(data) for name, data in bombs().items()}
    corpus |= {f"impostor_{name}": file for name, file in impostors(sound).items()}
    broken = broken_dicoms(drawing())
    return corpus | {f"dicom_{name}.dcm": File(data, is_good) for name, (data, is_good) in broken.items()}


# The sound files of which every tenth is cut off, and bits are flipped.
DAMAGED = (
    "grey.png", "deep.png", "palette.png", "grey.jpg", "progressive.jpg", "cmyk.jpg", "grey.webp", "lossless.webp",
    "grey.tif", "lzw.tif", "deep.tif", "white_zero.tif", "deep.jp2", "deep.npy", "grey.png.gz", "grey.bmp",
    "raw_12.dcm", "rle.dcm", "jpeg.dcm", "jpeg_2000.dcm", "jpeg_ls.dcm",
)  # fmt: skip


def sound_pictures() -> dict[str, bytes]:
    """The drawing in every form, mode and depth in which radiographs are kept."""
    image = Image.fromarray(drawing())
    colour, deep = image.convert("RGB"), Image.fromarray(drawing().astype(np.uint16) * 257)
    pictures = {f"{mode.lower()}.png": encoded(image.convert(mode), "PNG") for mode in ("LA", "RGB", "RGBA", "1")}
    pictures |= {f"{mode.lower()}.tif": encoded(colour.convert(mode), "TIFF") for mode in ("CMYK",)}
    pictures |= {
        f"{coding}.tif": encoded(image, "TIFF", compression=f"tiff_{coding}")
        for coding in ("lzw", "adobe_deflate", "jpeg")
    }
    pictures |= {f"turned_{turn}.jpg": encoded(image, "JPEG", exif=_turned(turn)) for turn in range(1, 9)}
    pictures |= {f"turned_{turn}.png": encoded(image, "PNG", exif=_turned(turn)) for turn in (3, 6)}
    return pictures | {
        "grey.png": encoded(image, "PNG"),
        "deep.png": encoded(deep, "PNG"),
        "palette.png": encoded(colour.quantize(32), "PNG"),
        "seen_through.png": encoded(colour.quantize(32), "PNG", transparency=3),
        "grey.jpg": encoded(image, "JPEG"),
        # As phones write it: a second picture for a few programs, or a map of light, behind the one that all show.
        "two_pictures.jpg": encoded(image, "MPO", save_all=True, append_images=[image.reduce(2)]),
        "colour.jpg": encoded(colour, "JPEG"),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "cmyk.jpg": encoded(colour.convert("CMYK"), "JPEG"),
        "grey.webp": encoded(image, "WEBP"),
        "lossless.webp": encoded(colour.convert("RGBA"), "WEBP", lossless=True),
        "grey.tif": encoded(image, "TIFF"),
        "deep.tif": encoded(deep, "TIFF"),
        "float.tif": encoded(Image.fromarray(drawing() / np.float32(255)), "TIFF"),
        "wide.tif": encoded(Image.fromarray(drawing().astype(np.int32) * 70000), "TIFF"),
        "packbits.tif": encoded(image.convert("1"), "TIFF", compression="packbits"),
        "fax.tif": encoded(image.convert("1"), "TIFF", compression="group4"),
        "white_zero.tif": tiff(65535 - drawing().astype(np.uint16) * 257, 0),
        "white_zero_big.tif": tiff(255 - drawing() / np.float32(255), 0, ">"),
        "signed.tif": tiff(drawing().astype(np.int16) - 128, 1),
        "deep.jp2": encoded(deep, "JPEG2000"),
        "grey.jp2": encoded(image, "JPEG2000"),
        "deep.npy": numpy_file(drawing().astype(np.uint16)),
        "float.npy": numpy_file(drawing() / 255),
        "grey.png.gz": gzip.compress(encoded(image, "PNG"), mtime=0),
        "grey.bmp": encoded(image, "BMP"),
        "palette.bmp": encoded(colour.quantize(16), "BMP"),
    }


def truncations(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The file cut off after each tenth of it."""
    return ((tenth, data[: len(data) * tenth // 10]) for tenth in range(1, 10))


def flip(data: bytes, random: np.random.Generator) -> bytes:
    """The file with one to twenty bits turned over, half of the times in its first 400 bytes, where headers lie."""
    flipped = bytearray(data)
    reach = min(400, len(data)) if random.random() < 0.5 else len(data)
    for place in random.integers(0, reach, random.integers(1, 21)):
        flipped[place] ^= 1 << random.integers(0, 8)
    return bytes(flipped)


def shapes() -> dict[str, File]:
    """From one pixel to strips: all that holds two grey levels is read."""
    rows = {
        f"{height}x{width}.{form}": File(encoded(Image.fromarray(drawing(height, width)), kind), is_good=True)
        for height, width in ((1, 2), (2, 1), (1, 20000), (20000, 1), (3, 5), (1, 300), (7, 4096))
        for form, kind in (("png", "PNG"), ("tif", "TIFF"), ("jpg", "JPEG"))
    }
    dots = {f"1x1_{mode.replace(';', '')}.png": Image.new(mode, (1, 1)) for mode in ("L", "RGBA", "I;16", "P", "1")}
    plain = {"white.png": Image.new("L", (64, 64), 255), "glass.png": Image.new("RGBA", (64, 64), (90, 90, 90, 0))}
    return rows | {name: File(encoded(image, "PNG"), is_good=False) for name, image in (dots | plain).items()}


def claims() -> dict[str, bytes]:
    """Headers that promise no pixels, or more than there is memory for."""
    tif, bmp, jpg = (bytearray(encoded(Image.fromarray(drawing()), form)) for form in ("TIFF", "BMP", "JPEG"))
    frame = jpg.index(b"\xff\xc0") + 5
    return {
        **{f"{width}x{height}.png": png(width, height) for width, height in ((0, 0), (0, 9), (60000, 60000))},
        "most.png": png(2**31 - 1, 2**31 - 1),
        "deepest.png": png(50000, 50000, depth=16, colour=6),
        "square_of_20000.png": png(20000, 20000, (b"IDAT", zeros(20000 * 2501)), depth=1),
        "wide.bmp": bytes(bmp[:18] + struct.pack("<ii", 2**30, 2**30) + bmp[26:]),
        "upside_down.bmp": bytes(bmp[:18] + struct.pack("<ii", -5, -(2**31)) + bmp[26:]),
        "none.bmp": bytes(bmp[:18] + struct.pack("<ii", 0, 0) + bmp[26:]),
        "wide.jpg": bytes(jpg[:frame] + b"\xff\xff\xff\xff" + jpg[frame + 4 :]),
        "none.jpg": bytes(jpg[:frame] + bytes(4) + jpg[frame + 4 :]),
        "wide.tif": _tiff({256: 100_000, 257: 100_000}, tif),
        "most.tif": _tiff({256: 2**32 - 1, 257: 2**32 - 1}, tif),
        "none.tif": _tiff({256: 0, 257: 0}, tif),
    }


def several_frames() -> dict[str, bytes]:
    """Films, animations and stacks."""
    frames = [Image.fromarray(np.roll(drawing(), shift, axis=0)) for shift in (0, 30, 60)]
    rest: dict[str, object] = {"save_all": True, "append_images": frames[1:]}
    return {f"{form.lower()}.{form.lower()}": encoded(frames[0], form, **rest) for form in ("TIFF", "WEBP", "PNG")} | {
        "gif.png": encoded(frames[0], "GIF", **rest),
    }


def bombs() -> dict[str, bytes]:
    """Small files that ask for much memory, time, or another program."""
    pixels = (b"IDAT", zlib.compress((b"\0" + bytes(range(64))) * 64))
    strip = bytearray(1 + 99_000_000 // 8)
    strip[1:1000] = b"\xaa" * 999
    link = struct.pack("<H12sI", 1, struct.pack("<HHII", 256, 4, 1, 64), 8)
    return {
        "text.png": png(64, 64, (b"zTXt", b"note\0\0" + zeros(2**30)), pixels),
        "profile.png": png(64, 64, (b"iCCP", b"icc\0\0" + zeros(2**30)), pixels),
        "frames.png": png(64, 64, (b"acTL", struct.pack(">II", 2**31 - 1, 0)), pixels),
        "chunks.png": png(64, 64, *[(b"tEXt", b"a\0b")] * 20_000, pixels),
        "circle.tif": b"II*\0\x08\0\0\0" + link,
        "directories.tif": _directories(100_000),
        "strip.png": png(99_000_000, 1, (b"IDAT", zlib.compress(strip, 1)), depth=1),
        "endless.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n{} loop showpage\n",
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    }


def impostors(sound: dict[str, bytes]) -> dict[str, File]:
    """Pictures under another's name, which are read, and what is no picture under a picture's name."""
    grey = Image.fromarray(drawing())
    named = {
        "png.jpg": sound["grey.png"], "jpeg.png": sound["grey.jpg"], "tiff.bmp": sound["grey.tif"],
        "webp.tif": sound["grey.webp"], "dicom.png": sound["raw_12.dcm"], "dicom": sound["rle.dcm"],
        "upper.PNG": sound["grey.png"],
    }  # fmt: skip
    noise = np.random.default_rng(SEED).bytes(5000)
    others = {
        "empty.png": b"", "empty.dcm": b"", "byte.png": b"\x89", "mark.png": b"\x89PNG\r\n\x1a\n",
        "mark.jpg": b"\xff\xd8", "mark.tif": b"II*\0", "mark.bmp": b"BM", "mark.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        "text.png": b"Dear colleague\n", "page.jpg": b"<!doctype html><title>404</title>",
        "table.tif": b"image,age\na.png,63\n", "zip.png": b"PK\x03\x04" + bytes(60), "pdf.png": b"%PDF-1.7\n%%EOF",
        "program.dcm": b"\x7fELF" + bytes(300), "zeros.png": bytes(5000), "noise.jpg": noise, "noise.dcm": noise,
        "png.dcm": sound["grey.png"], "pickle.png": b"\x80\x04\x95\x10\0\0\0", "git.png": b"version https://git-lfs\n",
        "fits.png": b"SIMPLE  =                    T", "icon.png": encoded(grey, "ICO"),
        "gif.png": encoded(grey, "GIF"),
    }  # fmt: skip
    read = {name: File(data, is_good=True) for name, data in named.items()}
    return read | {name: File(data, is_good=False) for name, data in others.items()}


def _directories(count: int) -> bytes:
    """A TIFF of so many pictures, all of which show the same pixels; counting them takes the square of their number."""
    tags = ((256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 8), (279, 64))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    size = 2 + len(entries) + 4
    starts = [72 + size * number for number in range(count)] + [0]
    directories = (struct.pack("<H", len(tags)) + entries + struct.pack("<I", start) for start in starts[1:])
    return b"II*\0" + struct.pack("<I", starts[0]) + bytes(range(64)) + b"".join(directories)


def _turned(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif


def _tiff(values: dict[int, int], data: bytearray) -> bytes:
    """A little-endian TIFF with other values of some tags, each written as one LONG."""
    changed, start = bytearray(data), struct.unpack_from("<I", data, 4)[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if (tag := struct.unpack_from("<H", data, entry)[0]) in values:
            changed[entry : entry + 12] = struct.pack("<HHII", tag, 4, 1, values[tag])
    return bytes(changed)
