"""How a picture file is built: bounds for Pillow, which takes any number of parts apart before it tells a size."""

import re
import struct
import zlib

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .pixels_cxrfpn import MAX_PIXELS, RadiographError, check_size
except ImportError:
    from pixels_cxrfpn import MAX_PIXELS, RadiographError, check_size

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Parts that hold next to nothing: chunks under PART_BYTES, segments, strips. A film may have one for each of its rows.
MAX_PARTS, PART_BYTES = 70_000, 1024
# Camera data: Pillow copies what each entry of its directory points to, and entries may point to the same bytes.
MAX_EXIF_BYTES = 2**16
# A progressive JPEG has about ten scans, and each passes over all of its pixels.
MAX_SCANS, MAX_SCANNED = 100, 20 * MAX_PIXELS
# Of a JPEG before its first scan, in bytes, without what applications add.
MAX_HEADER_BYTES = 2**17
# Of a TIFF's directory.
MAX_ENTRIES = 4096

# What the pixels of a PNG depend on; texts by which its picture may be turned; the comment of a prepared image.
PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND", b"acTL", b"fcTL", b"fdAT")
PNG_TEXTS = {b"tEXt": (b"Raw profile type exif\0", b"comment\0"), b"iTXt": (b"XML:com.adobe.xmp\0\0",)}
PNG_INFLATED = b"Raw profile type exif\0\0"
# The same of a JPEG, by marker and how the segment begins: tables and frames, JFIF, Exif, XMP, Adobe's colours, and
# short comments, by which prepared images are known. The list of further pictures (MPF), which phones write behind the
# one that every program shows, is not among them.
JPEG_SEGMENTS = re.compile(
    rb"[\xc0-\xc7\xc9-\xcf\xdb-\xdd]|\xe0..JFIF|\xe1..(Exif\0|http://ns\.adobe\.com/xap/1\.0/\0)|\xee..Adobe"
    rb"|\xfe\0[\0-\x60]",
    re.DOTALL,
)
JPEG_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
STANDALONE = (0x00, 0x01, *range(0xD0, 0xDA))  # markers without a length
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# The types of a TIFF's entries: bytes of a value, and how struct calls those that a size may have.
TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
TIFF_SIZE, TIFF_PIECES = (256, 257), (273, 324)  # width and height; where strips and tiles begin


def bounded(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return a picture file that Pillow opens in bounded time and memory.

    Of PNG and JPEG only the parts that the pixels depend on are kept. Other formats are returned as they are.

    Args:
        data: a file.
        name: what errors call it.
        max_pixels: as for `check_size`, which is called for a TIFF: Pillow lists its strips before it tells its size.

    Raises:
        RadiographError: too many parts, scans or pixels, or more camera data than a camera writes.
    """
    if data.startswith(PNG):
        return _bounded_png(data, name)
    if data.startswith(JPEG):
        return _bounded_jpeg(data, name)
    if data[:2] in (b"II", b"MM"):
        _check_tiff(data, name, max_pixels)
    if data[:4] == b"RIFF":
        _check_riff(data, name)
    return data


class _Kept:
    """The parts of a file that are kept, in order."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.parts: list[list[int]] = []

    def add(self, start: int, end: int) -> None:
        if self.parts and self.parts[-1][1] == start:  # copied together
            self.parts[-1][1] = end
        else:
            self.parts.append([start, end])

    def joined(self) -> bytes:
        return b"".join(self.data[start:end] for start, end in self.parts)


def _bounded_png(data: bytes, name: str) -> bytes:
    kept, place, parts = _Kept(data), len(PNG), 0
    kept.add(0, place)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        parts += length < PART_BYTES
        _check_parts(parts, name)
        if kind == b"eXIf":
            _check_exif(length, name)
        if kind in PNG_CHUNKS or (kind in (b"tEXt", b"zTXt", b"iTXt") and _is_kept(data[place + 8 : end - 4], kind)):
            kept.add(place, end)
        place = end
        if kind == b"IEND":
            break
    return kept.joined()


def _is_kept(text: bytes, kind: bytes) -> bool:
    """Whether a text of a PNG is one of those that reading depends on, and stays small when it is inflated."""
    if len(text) > MAX_EXIF_BYTES:
        return False
    if kind != b"zTXt" or not text.startswith(PNG_INFLATED):
        return text.startswith(PNG_TEXTS.get(kind, ()))
    inflate = zlib.decompressobj()
    try:
        inflate.decompress(text[len(PNG_INFLATED) :], 2 * MAX_EXIF_BYTES)  # hexadecimal digits
    except zlib.error:
        return False
    return inflate.eof


def _bounded_jpeg(data: bytes, name: str) -> bytes:
    """Look at what stands before the first scan; libjpeg reads the rest, and faster than it can be sent."""
    kept, place, parts, header, pixels, has_exif = _Kept(data), 2, 0, 0, 0, False
    kept.add(0, place)
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        if marker == 0xDA:
            break
        parts += 1
        _check_parts(parts, name)
        if marker in STANDALONE or marker == 0xFF:  # any number of FF may stand before a marker
            place += 1 if marker == 0xFF else 2
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if end < place + 4:
            raise RadiographError(f"{name}: damaged or truncated (a segment of the JPEG has no length)")
        if marker in JPEG_FRAMES and place + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, place + 5)
            pixels = max(pixels, height * width)
        is_exif = data[place + 1] == 0xE1 and data[place + 4 : place + 8] == b"Exif"
        # Of several Exif segments Pillow makes one, and the directory stands in the first.
        if JPEG_SEGMENTS.match(data, place + 1) and not (is_exif and has_exif):
            has_exif |= is_exif
            header += end - place if marker != 0xE1 else 4
            if header > MAX_HEADER_BYTES:
                raise RadiographError(f"{name}: the JPEG's header is longer than any program writes; save it again")
            kept.add(place, end)
        place = end
    place = len(data) if place < 0 else place
    scans = data.count(b"\xff\xda", place)
    if scans > MAX_SCANS or scans * pixels > MAX_SCANNED:
        raise RadiographError(f"{name}: a JPEG of {scans} scans is not read; save it again")
    kept.add(place, len(data))
    return kept.joined()


def _check_tiff(data: bytes, name: str, max_pixels: int) -> None:
    """Check the first directory of a TIFF, the one that is read."""
    order, is_big = "<" if data[:2] == b"II" else ">", data[:4] in TIFF_MARKS[2:]
    head, counter, entry = ("8xQ", "Q", "HHQ8s") if is_big else ("4xI", "H", "HHI4s")
    size, room = {}, len(data)
    try:
        if data[:4] not in TIFF_MARKS:
            raise struct.error
        (place,) = struct.unpack_from(order + head, data)
        (count,) = struct.unpack_from(order + counter, data, place)
        place += struct.calcsize(order + counter)
        for _ in range(min(count, MAX_ENTRIES)):
            tag, kind, length, value = struct.unpack_from(order + entry, data, place)
            place += struct.calcsize(order + entry)
            room -= TIFF_BYTES.get(kind, 0) * length
            if tag in TIFF_SIZE:
                size[tag] = struct.unpack_from(order + TIFF_NUMBERS[kind], value)[0]
            if tag in TIFF_PIECES:
                _check_parts(length, name)
        width, height = (size[tag] for tag in TIFF_SIZE)
    except (struct.error, KeyError):
        raise RadiographError(f"{name}: damaged or truncated (the file has no directory of a TIFF)") from None
    check_size(width, height, name, max_pixels)
    if count > MAX_ENTRIES or room < 0:
        raise RadiographError(f"{name}: the entries of the TIFF are too many, or overlap; save it with another program")


def _check_riff(data: bytes, name: str) -> None:
    """Check the chunks of a WebP."""
    place, parts = 12, 0
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        parts += 1
        _check_parts(parts, name)
        if kind == b"EXIF":
            _check_exif(length, name)
        place += 8 + length + length % 2


def _check_parts(parts: int, name: str) -> None:
    if parts > MAX_PARTS:
        raise RadiographError(f"{name}: is built of more than {MAX_PARTS:,} parts; save it with another program")


def _check_exif(length: int, name: str) -> None:
    if length > MAX_EXIF_BYTES:
        raise RadiographError(f"{name}: its camera data are longer than a camera writes; save it without them")
