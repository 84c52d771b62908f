"""A radiograph in any kind of file or array -> 8-bit grey pixels, and what a DICOM header says of the patient."""

import io
import os
import re
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# 100 megapixels is 7 times the largest detector; beyond it a small file may ask for all of the memory.
MAX_PIXELS = 100_000_000
# As much as JPEG and DICOM can say; the time to shrink a strip of pixels grows with its length.
MAX_SIDE = 65_535
# Of a file, and of what a DICOM file inflates to.
MAX_BYTES = 2**30
# Pillow's other readers start programs (PostScript), or are seldom looked at.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
DICOM_SUFFIXES = (".dcm", ".dicom")
# The transfer syntax (0002,0010) of a DICOM file that is deflated as a whole.
DEFLATED_DICOM = re.compile(rb"\x02\x00\x10\x00.{4}1\.2\.840\.10008\.1\.2\.1\.99", re.DOTALL)
# What lies beyond its range is an error of whoever wrote the pixels, and overflows in arithmetic.
# The range of single precision, as plain floats: numpy would cast what it compares with its own.
LEAST, MOST = (float(limit) for limit in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
# The scale at which the range of grey levels is measured, in pixels of the shorter side.
THUMBNAIL_SIDE = 128
WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")

# PIL would only warn up to twice its own limit, and decode; ours is checked on the header, before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


class RadiographError(ValueError):
    """What cannot be read as a radiograph. The message is one line: the name, what is wrong, what to do."""


@dataclass(frozen=True)
class Radiograph:
    """Pixels [H,W] uint8 that span 0 to 255, and what the file says of the patient (None where it is silent)."""

    pixels: np.ndarray
    age: float | None = None
    sex: str | None = None
    view_position: str | None = None


def read_radiograph(source: Any, name: str | None = None, least_side: int | None = None) -> Radiograph:
    """Read a radiograph of any kind as 8-bit grey, stretched over the range that its pixels really take.

    Stretching makes a file of 8 bits, its twin of 12 or 16 bits and a float array of 0..1 the same radiograph.

    Args:
        source: a path (never fetched as a URL), bytes, a binary file, a PIL image, a `Radiograph` (given back), or a
            numpy array or tensor of [H,W], [H,W,C] or [C,H,W] with 1, 3 or 4 channels and any numeric type. Files: PNG,
            JPEG, WebP, TIFF and BMP in any mode; DICOM with pydicom installed.
        name: what errors call it; by default the path.
        least_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 scale as long as both sides keep this many pixels.

    Raises:
        RadiographError: not an image, empty, truncated, over 100 megapixels or 1 GB, of one value only, several
            frames, a DICOM without pixels.
    """
    if hasattr(source, "pixels"):  # a Radiograph, perhaps of the copy of this module that a package brought along
        return source
    if isinstance(source, Image.Image):
        return Radiograph(_from_pil(source, name or "image", least_side))
    if hasattr(source, "cpu"):  # a tensor; importing torch to ask would slow the start of those who have none
        source = _array_of(source, name or "tensor")
    if isinstance(source, np.ndarray):
        return Radiograph(_from_array(source, name or "array"))
    name, data = _read_bytes(source, name)
    if not data:
        raise RadiographError(f"{name}: the file is empty")
    if data[128:132] == b"DICM" or name.lower().endswith(DICOM_SUFFIXES):
        return _from_dicom(data, name)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return Radiograph(_from_pil(image, name, least_side))
    except UnidentifiedImageError:
        raise RadiographError(f"{name}: not an image that can be read (PNG, JPEG, WebP, TIFF, BMP or DICOM)") from None
    except RadiographError:
        raise
    except Exception as error:  # Pillow's parsers and decoders raise many kinds (OSError, SyntaxError, struct.error)
        raise RadiographError(f"{name}: damaged or truncated ({_in_one_line(error)})") from None


def stretch_to_8_bits(values: np.ndarray, name: str = "image") -> np.ndarray:
    """Map the range that the radiograph takes at thumbnail scale, linearly, onto 0..255; what lies outside is clipped.

    A range of single pixels would change with every reduction (noise, the ringing of JPEG, the edges of markers), and
    the same radiograph of 1024 and of 384 pixels would come out up to 15 grey levels apart.

    Args:
        values: [H,W] of any real type.
        name: what errors call it.

    Returns:
        [H,W] uint8; an image under 256 pixels spans 0 to 255 exactly.

    Raises:
        RadiographError: for values that are not finite, or all the same.
    """
    if values.size == 0:
        raise RadiographError(f"{name}: has no pixels")
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RadiographError(f"{name}: has pixels that are not finite numbers")
    if low == high:
        raise RadiographError(f"{name}: every pixel has the value {low:g}, so there is nothing to see")
    low, high = float(low), float(high)
    if not LEAST <= high - low <= MOST:
        raise RadiographError(f"{name}: pixels from {low:g} to {high:g} are no grey levels; rescale them")
    low, high = _thumbnail_range(values, low, high)
    if values.dtype == np.uint8 and low == 0 and high == 255:
        return values
    if values.dtype in (np.uint8, np.uint16):  # a table look-up is several times faster than arithmetic on pixels
        table = (np.arange(np.iinfo(values.dtype).max + 1, dtype=np.float64) - low) * (255 / (high - low))
        return np.take(np.rint(table).clip(0, 255).astype(np.uint8), values)
    return np.rint((values.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def _thumbnail_range(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Lowest and highest mean over squares that leave 128 to 255 pixels a side; low and high where those are equal."""
    factor = min(values.shape) // THUMBNAIL_SIDE
    if factor < 2:
        return low, high
    rows, columns = values.shape[0] // factor, values.shape[1] // factor
    kinds = {1: np.int32, 2: np.int32, 4: np.int64}  # whose sums cannot overflow
    kind = np.float64 if values.dtype.kind == "f" else kinds.get(values.dtype.itemsize, np.float64)
    bands, sums = np.zeros((rows, columns * factor), kind), np.zeros((rows, columns), kind)
    for step in range(factor):  # slices are added faster than numpy reduces over short axes
        bands += values[step : rows * factor : factor, : columns * factor]
    for step in range(factor):
        sums += bands[:, step::factor]
    lowest, highest = sums.min() / factor**2, sums.max() / factor**2
    return (lowest, highest) if highest - lowest >= LEAST else (low, high)


def _read_bytes(source: Any, name: str | None) -> tuple[str, bytes]:
    if isinstance(source, bytes | bytearray | memoryview):
        return printable(name or "image"), bytes(source)
    if hasattr(source, "read"):
        name = printable(name or str(getattr(source, "name", "image")))
        try:
            data = source.read()
        except (OSError, ValueError) as error:
            raise RadiographError(f"{name}: cannot be read ({_in_one_line(error)})") from None
        if not isinstance(data, bytes):
            raise RadiographError(f"{name}: was opened as text; open it in binary mode")
        return name, data
    if not isinstance(source, str | os.PathLike):
        raise RadiographError(f"{name or 'image'}: cannot read a radiograph from {type(source).__name__}")
    path = Path(source)
    shown = printable(str(path))
    try:
        _check_file(path.stat(), shown)
        return printable(name or str(path)), path.read_bytes()
    except RadiographError:
        raise
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or error
        raise RadiographError(f"{shown}: cannot be read ({reason})") from None


def _check_file(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise RadiographError(f"{name}: is a folder, not a radiograph")
    if not stat.S_ISREG(status.st_mode):  # a pipe nobody writes to, or a device without end, would be waited for
        raise RadiographError(f"{name}: is a pipe or a device; save it as a file first")
    if status.st_size > MAX_BYTES:
        raise RadiographError(f"{name}: is larger than {MAX_BYTES >> 30} GB; save it compressed, or shrink it")


def _check_size(width: int, height: int, name: str) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise RadiographError(
            f"{name}: {width} x {height} pixels are more than {MAX_PIXELS // 10**6} million, or a side is longer than "
            f"{MAX_SIDE}; shrink it"
        )


def _from_pil(image: Image.Image, name: str, least_side: int | None) -> np.ndarray:
    _check_size(*image.size, name)
    # How many there are, a TIFF tells only after minutes if it is made to.
    if getattr(image, "is_animated", False):
        raise RadiographError(f"{name}: has several frames; give one radiograph a file")
    try:
        if least_side is not None:
            image.draft("L", (least_side, least_side))  # only a JPEG not yet decoded heeds it
        image = ImageOps.exif_transpose(image)
        return stretch_to_8_bits(_grey(image), name)
    except RadiographError:
        raise
    except Exception as error:
        raise RadiographError(f"{name}: damaged or truncated ({_in_one_line(error)})") from None


def _grey(image: Image.Image) -> np.ndarray:
    if image.mode in WIDE_MODES:
        return np.asarray(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (255, 255):
            return np.asarray(rgba.convert("RGB").convert("L"))
        return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("L"))
    return np.asarray(image.convert("L"))


def _array_of(tensor: Any, name: str) -> np.ndarray:
    try:
        return tensor.detach().cpu().float().numpy()
    except (RuntimeError, TypeError) as error:  # sparse, quantised, or without any data
        raise RadiographError(f"{name}: cannot be made an array ({_in_one_line(error)})") from None


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == object or array.dtype.kind not in "buif":
        raise RadiographError(f"{name}: an array of {array.dtype} holds no pixels")
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] in (1, 3, 4):
        # The weights of ITU-R 601, as Pillow's; an alpha channel of an array is left out.
        weights = np.array([0.299, 0.587, 0.114]) if array.shape[2] > 1 else np.ones(1)
        equal = array.shape[2] == 1 or ((array[..., 0] == array[..., 1]) & (array[..., 1] == array[..., 2])).all()
        array = array[..., 0] if equal else array[..., :3].astype(np.float64) @ weights
    if array.ndim != 2:
        raise RadiographError(
            f"{name}: an array of shape {list(array.shape)} is no image; give [H,W], [H,W,3] or [3,H,W]"
        )
    _check_size(array.shape[1], array.shape[0], name)
    return stretch_to_8_bits(array.astype(np.uint8) if array.dtype == bool else array, name)


def _from_dicom(data: bytes, name: str) -> Radiograph:
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise RadiographError(f"{name}: is a DICOM file; install pydicom to read it") from None
    try:
        _check_inflated(data, name)
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # a data set alone, as old archives keep them
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        header = _dicom_header(dataset, name)
        pixels = _from_array(apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset), name)
        if str(dataset.PhotometricInterpretation) == "MONOCHROME1":  # the lowest value is the brightest
            pixels = 255 - pixels
    except RadiographError:
        raise
    except Exception as error:  # pydicom and its decoders raise whatever a broken file leads them to
        raise RadiographError(f"{name}: the DICOM file cannot be decoded ({_in_one_line(error)})") from None
    return Radiograph(pixels, **header)


def _check_inflated(data: bytes, name: str) -> None:
    """Refuse what would take all of the memory before pydicom, which has no limit, inflates it."""
    if DEFLATED_DICOM.search(data) is None:
        return
    # (0002,0000), the first element after the mark, says where the deflated part begins.
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    inflate, left, piece = zlib.decompressobj(-zlib.MAX_WBITS), MAX_BYTES, 2**14
    for place in range(start, len(data), piece):
        left -= len(inflate.decompress(data[place : place + piece]))  # at most 1032 times as long
        if left < 0:
            raise RadiographError(f"{name}: inflates to more than {MAX_BYTES >> 30} GB; save it uncompressed")


def _check_coded_size(dataset: Any, name: str) -> None:
    """Refuse a compressed frame of another size than its header's: decoders make room for what the frame says."""
    from pydicom.encaps import generate_frames

    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    size = _coded_size(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    if size not in (None, (dataset.Columns, dataset.Rows)):
        raise RadiographError(
            f"{name}: its pixels are {size[0]} x {size[1]}, but its header says {dataset.Columns} x {dataset.Rows}"
        )


def _coded_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height as a JPEG, JPEG-LS or JPEG 2000 frame says them; None where it is neither."""
    if (place := frame.find(b"\xff\x4f\xff\x51", 0, 1024)) >= 0:  # start of codestream, then SIZ
        return struct.unpack_from(">II", frame, place + 8)
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # a start of frame
            height, width = struct.unpack_from(">HH", frame, place + 5)
            return width, height
        place += 2 + int.from_bytes(frame[place + 2 : place + 4])
    return None


def _dicom_header(dataset: Any, name: str) -> dict[str, Any]:
    if "PixelData" not in dataset:
        raise RadiographError(f"{name}: the DICOM file has no pixels")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise RadiographError(f"{name}: has {dataset.NumberOfFrames} frames; give one radiograph a file")
    _check_size(int(dataset.Columns), int(dataset.Rows), name)
    _check_coded_size(dataset, name)
    return {
        "age": _dicom_age(str(dataset.get("PatientAge") or "")),
        "sex": _known(dataset.get("PatientSex"), ("M", "F")),
        "view_position": _known(dataset.get("ViewPosition"), ("PA", "AP")),
    }


def _dicom_age(text: str) -> float | None:
    """An Age String (DICOM PS3.5, AS): three digits and D, W, M or Y."""
    match = re.fullmatch(r"\s*(\d{1,3})([DWMY])\s*", text)
    if match is None:
        return None
    years = int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[match[2]]
    return round(years, 2) if years <= 120 else None


def _known(value: Any, allowed: tuple[str, ...]) -> str | None:
    text = str(value or "").strip().upper()
    return text if text in allowed else None


def printable(text: str) -> str:
    """A name as it may stand in a line of text: line ends, controls and what is no Unicode become a question mark."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _in_one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()))[:200] or type(error).__name__
