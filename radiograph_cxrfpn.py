"""A radiograph in any kind of file or array -> 8-bit grey pixels, and what a DICOM header says of the patient."""

import io
import math
import os
import stat
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .decoding_cxrfpn import OUT_OF_MEMORY, decode_apart, serve
    from .dicom_cxrfpn import GZIP, MAX_BYTES, is_dicom, read_dicom
    from .patient_cxrfpn import Patient
    from .pixels_cxrfpn import (
        MAX_PIXELS,
        RadiographError,
        check_size,
        grey_of_array,
        in_one_line,
        printable,
        stretch_to_8_bits,
    )
    from .structure_cxrfpn import JPEG, PNG, bounded
    from .tiff_cxrfpn import is_white_zero, true_range, with_black_zero
except ImportError:
    from decoding_cxrfpn import OUT_OF_MEMORY, decode_apart, serve
    from dicom_cxrfpn import GZIP, MAX_BYTES, is_dicom, read_dicom
    from patient_cxrfpn import Patient
    from pixels_cxrfpn import (
        MAX_PIXELS,
        RadiographError,
        check_size,
        grey_of_array,
        in_one_line,
        printable,
        stretch_to_8_bits,
    )
    from structure_cxrfpn import JPEG, PNG, bounded
    from tiff_cxrfpn import is_white_zero, true_range, with_black_zero

# Pillow's other readers start programs (PostScript), or are seldom looked at.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "JPEG2000")
KINDS = "PNG, JPEG, JPEG 2000, WebP, TIFF, BMP, NumPy or DICOM"
NUMPY = b"\x93NUMPY"
# What is decoded in this process: the decoders of these are fast, and raise where a file is broken.
DECODED_HERE = (PNG, JPEG, NUMPY)
# Of 256. Colours of 16 bits are read by their upper 8, in which a picture of 12 bits has at most 16 levels.
FEW_LEVELS = 64
WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
# A JPEG decoded at reduced scale keeps this many times the pixels that are needed, on each side: it then cannot be told
# from one decoded in full.
PIXELS_KEPT = 2
# How the comment begins in the files that prepare.py writes: their grey levels were stretched when they were made.
PREPARED = "prepared by cxr-densenet-fpn"

# PIL would only warn up to twice its own limit, and decode; ours is checked on the header, before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Radiograph:
    """Pixels [H,W] uint8 that span 0 to 255, and what the file says of the patient (None where it is silent).

    `notes` are short sentences that say why it may be no frontal chest radiograph for presentation, or why its picture
    is uncertain. Normally there are none.
    """

    pixels: np.ndarray
    age: float | None = None
    sex: str | None = None
    view_position: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def patient(self) -> Patient:
        """What the file says of the patient."""
        return Patient(self.age, self.sex, self.view_position)


def read_radiograph(
    source: object, name: str | None = None, least_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> Radiograph:
    """Read a radiograph of any kind as 8-bit grey, stretched over the range that its pixels really take.

    Stretching makes a file of 8 bits, its twin of 12 or 16 bits and a float array of 0..1 the same radiograph. A file
    that prepare.py wrote is not stretched a second time.

    Args:
        source: a path (never fetched as a URL), bytes, a binary file, a PIL image, a `Radiograph` (given back), or a
            numpy array or tensor of [H,W], [H,W,C] or [C,H,W] with 1, 3 or 4 channels and any numeric type. Files: PNG,
            JPEG, JPEG 2000, WebP, TIFF and BMP in any mode; .npy; DICOM with pydicom installed; each also in gzip.
        name: what errors call it; by default the path.
        least_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 scale as long as both sides keep this many pixels.
        max_pixels: of a file; it also limits the time and the memory that decoding may take.

    Raises:
        RadiographError: not an image, empty, truncated, over `max_pixels` or 1 GB, of one value only, several
            frames, a DICOM without pixels.
    """
    if isinstance(source, Radiograph):
        return source
    if isinstance(source, Image.Image):
        return Radiograph(_from_pil(source, name or "image", least_side, max_pixels))
    if hasattr(source, "cpu"):  # a tensor; importing torch to ask would slow the start of those who have none
        source = _array_of(source, name or "tensor")
    if isinstance(source, np.ndarray):
        return Radiograph(grey_of_array(source, name or "array", max_pixels))
    name, data = _read_bytes(source, name)
    if not data:
        raise RadiographError(f"{name}: the file is empty")
    if data.startswith(DECODED_HERE) and not is_dicom(data, name):
        try:
            return _decode(data, name, least_side, max_pixels)
        except MemoryError:
            raise RadiographError(f"{name}: {OUT_OF_MEMORY}") from None
    pixels, others = decode_apart(data, name, least_side, max_pixels)
    return Radiograph(pixels, **others)


def decode_fields(
    data: bytes, name: str, least_side: int | None, max_pixels: int
) -> tuple[np.ndarray, dict[str, object]]:
    """Decode a file in this process, even if that ends it; the worker's half of `read_radiograph`.

    Returns:
        pixels [H,W] uint8, and the other fields of the `Radiograph`.

    Raises:
        RadiographError: as `read_radiograph`.
    """
    radiograph = _decode(data, name, least_side, max_pixels)
    return radiograph.pixels, {
        field.name: getattr(radiograph, field.name) for field in fields(radiograph) if field.name != "pixels"
    }


def _decode(data: bytes, name: str, least_side: int | None, max_pixels: int) -> Radiograph:
    if data.startswith(GZIP):
        data, name = _inflated(data, name), name[:-3] if name.lower().endswith(".gz") else name
    if is_dicom(data, name):
        pixels, header = read_dicom(data, name, max_pixels)
        return Radiograph(pixels, **header)
    if data.startswith(NUMPY):
        return Radiograph(grey_of_array(_numpy_array(data, name), name, max_pixels))
    data, is_inverted = with_black_zero(bounded(data, name, max_pixels))
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = _from_pil(image, name, least_side, max_pixels)
            return Radiograph(255 - pixels if is_inverted else pixels)
    except UnidentifiedImageError:
        kind = "a TIFF of a kind" if data[:4] in (b"II*\0", b"MM\0*") else "not an image"
        raise RadiographError(f"{name}: {kind} that can be read ({KINDS})") from None
    except (RadiographError, MemoryError):
        raise
    except Exception as error:  # Pillow's parsers and decoders raise many kinds (OSError, SyntaxError, struct.error)
        raise RadiographError(f"{name}: damaged or truncated ({in_one_line(error)})") from None


def comment_of(image: Image.Image) -> str:
    """Return the comment in the header of an open JPEG or PNG file; "" where there is none."""
    comment = image.info.get("comment", "")
    return comment.decode("latin-1") if isinstance(comment, bytes) else str(comment)


def resize_to_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Resize [H,W] uint8 pixels to [side,side], with antialiasing; all of the radiograph stays in the picture."""
    if pixels.shape == (side, side):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))


def _read_bytes(source: object, name: str | None) -> tuple[str, bytes]:
    if isinstance(source, bytes | bytearray | memoryview):
        return printable(name or "image"), bytes(source)
    if hasattr(source, "read"):
        name = printable(name or str(getattr(source, "name", "image")))
        try:
            data = source.read()
        except (OSError, ValueError) as error:
            raise RadiographError(f"{name}: cannot be read ({in_one_line(error)})") from None
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


def _from_pil(image: Image.Image, name: str, least_side: int | None, max_pixels: int) -> np.ndarray:
    check_size(*image.size, name, max_pixels)
    # How many there are, a TIFF tells only after minutes if it is made to. A JPEG of several is read as it is open.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise RadiographError(f"{name}: has several frames; give one radiograph a file")
    try:
        if image.mode == "L" and comment_of(image).startswith(PREPARED):
            return np.asarray(image)
        if least_side is not None:
            image.draft("L", (least_side, least_side))  # it changes only a JPEG that is not yet decoded
        has_deep_colours = ";16" in str(getattr(image, "tile", "")) and image.mode not in WIDE_MODES
        upright = ImageOps.exif_transpose(image)
        values = true_range(_grey(upright), image)
        if has_deep_colours and values.max() < FEW_LEVELS:
            raise RadiographError(f"{name}: would lose its grey levels, since it has colours; save it as 16-bit grey")
        pixels = stretch_to_8_bits(values, name)
        return 255 - pixels if is_white_zero(image) else pixels
    except (RadiographError, MemoryError):
        raise
    except Exception as error:
        raise RadiographError(f"{name}: damaged or truncated ({in_one_line(error)})") from None


def _grey(image: Image.Image) -> np.ndarray:
    if image.mode in WIDE_MODES:
        return np.asarray(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (255, 255):
            return np.asarray(rgba.convert("RGB").convert("L"))
        return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("L"))
    return np.asarray(image.convert("L"))


def _inflated(data: bytes, name: str) -> bytes:
    """Return the content of a gzip file.

    Raises:
        RadiographError: it is damaged, or holds more than MAX_BYTES.
    """
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = inflate.decompress(data, MAX_BYTES)
    except zlib.error:
        raise RadiographError(f"{name}: the gzip file is damaged") from None
    if inflate.unconsumed_tail:
        raise RadiographError(f"{name}: inflates to more than {MAX_BYTES >> 30} GB; shrink it")
    if not inflate.eof:
        raise RadiographError(f"{name}: the gzip file is cut short")
    return content


def _numpy_array(data: bytes, name: str) -> np.ndarray:
    """Read the array of a .npy file, without a copy; objects, which are pickles, are refused."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, kind = read_header(file)
    except Exception:  # a header is a literal of Python, and may be any
        raise RadiographError(f"{name}: the .npy file is damaged") from None
    if kind.hasobject or not kind.itemsize:
        raise RadiographError(f"{name}: an array of {in_one_line(kind)} holds no pixels")
    count = math.prod(shape)
    if count * kind.itemsize > len(data) - file.tell():
        raise RadiographError(f"{name}: the .npy file is cut short")
    return np.frombuffer(data, kind, count, file.tell()).reshape(shape, order="F" if is_fortran else "C")


def _array_of(tensor: Any, name: str) -> np.ndarray:
    try:
        return tensor.detach().cpu().float().numpy()
    except (RuntimeError, TypeError) as error:  # sparse, quantised, or without any data
        raise RadiographError(f"{name}: cannot be made an array ({in_one_line(error)})") from None


if __name__ == "__main__":  # the worker of decoding_cxrfpn.py
    serve(decode_fields)
