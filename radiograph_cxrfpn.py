"""A radiograph in any kind of file or array -> 8-bit grey pixels, and what a DICOM header says of the patient."""

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .dicom_cxrfpn import MAX_BYTES, is_dicom, read_dicom
    from .patient_cxrfpn import Patient
    from .pixels_cxrfpn import RadiographError, check_size, grey_of_array, in_one_line, printable, stretch_to_8_bits
except ImportError:
    from dicom_cxrfpn import MAX_BYTES, is_dicom, read_dicom
    from patient_cxrfpn import Patient
    from pixels_cxrfpn import RadiographError, check_size, grey_of_array, in_one_line, printable, stretch_to_8_bits

# Pillow's other readers start programs (PostScript), or are seldom looked at.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
# A JPEG decoded at reduced scale keeps this many times the pixels that are needed, on each side: it then cannot be told
# from one decoded in full.
PIXELS_KEPT = 2
# The comment in the files that prepare.py writes: their grey levels were stretched when they were made.
PREPARED = "prepared by cxr-densenet-fpn"

# PIL would only warn up to twice its own limit, and decode; ours is checked on the header, before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Radiograph:
    """Pixels [H,W] uint8 that span 0 to 255, and what the file says of the patient (None where it is silent).

    `notes` are short sentences on whatever keeps it from being a frontal chest radiograph for presentation, or makes
    its picture uncertain. Normally there are none.
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


def read_radiograph(source: Any, name: str | None = None, least_side: int | None = None) -> Radiograph:
    """Read a radiograph of any kind as 8-bit grey, stretched over the range that its pixels really take.

    Stretching makes a file of 8 bits, its twin of 12 or 16 bits and a float array of 0..1 the same radiograph. A file
    that prepare.py wrote is not stretched a second time.

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
        return Radiograph(grey_of_array(source, name or "array"))
    name, data = _read_bytes(source, name)
    if not data:
        raise RadiographError(f"{name}: the file is empty")
    if is_dicom(data, name):
        pixels, header = read_dicom(data, name)
        return Radiograph(pixels, **header)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return Radiograph(_from_pil(image, name, least_side))
    except UnidentifiedImageError:
        raise RadiographError(f"{name}: not an image that can be read (PNG, JPEG, WebP, TIFF, BMP or DICOM)") from None
    except RadiographError:
        raise
    except Exception as error:  # Pillow's parsers and decoders raise many kinds (OSError, SyntaxError, struct.error)
        raise RadiographError(f"{name}: damaged or truncated ({in_one_line(error)})") from None


def resize_to_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Resize [H,W] uint8 pixels to [side,side], with antialiasing; all of the radiograph stays in the picture."""
    if pixels.shape == (side, side):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))


def _read_bytes(source: Any, name: str | None) -> tuple[str, bytes]:
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


def _from_pil(image: Image.Image, name: str, least_side: int | None) -> np.ndarray:
    check_size(*image.size, name)
    # How many there are, a TIFF tells only after minutes if it is made to.
    if getattr(image, "is_animated", False):
        raise RadiographError(f"{name}: has several frames; give one radiograph a file")
    try:
        if image.mode == "L" and image.info.get("comment") in (PREPARED, PREPARED.encode()):
            return np.asarray(image)
        if least_side is not None:
            image.draft("L", (least_side, least_side))  # only a JPEG not yet decoded heeds it
        image = ImageOps.exif_transpose(image)
        return stretch_to_8_bits(_grey(image), name)
    except RadiographError:
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


def _array_of(tensor: Any, name: str) -> np.ndarray:
    try:
        return tensor.detach().cpu().float().numpy()
    except (RuntimeError, TypeError) as error:  # sparse, quantised, or without any data
        raise RadiographError(f"{name}: cannot be made an array ({in_one_line(error)})") from None
