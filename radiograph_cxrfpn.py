"""A radiograph in any kind of file or array -> 8-bit grey pixels, and what a DICOM header says of the patient."""

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# 100 megapixels is 7 times the largest detector; beyond it a small file may ask for all of the memory.
MAX_PIXELS = 100_000_000
DICOM_SUFFIXES = (".dcm", ".dicom")
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
            JPEG, WebP, TIFF, BMP and whatever else Pillow reads, in any mode; DICOM with pydicom installed.
        name: what errors call it; by default the path.
        least_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 scale as long as both sides keep this many pixels.

    Raises:
        RadiographError: not an image, empty, truncated, over 100 megapixels, of one value only, several frames, a
            DICOM without pixels.
    """
    if hasattr(source, "pixels"):  # a Radiograph, perhaps of the copy of this module that a package brought along
        return source
    if isinstance(source, Image.Image):
        return Radiograph(_from_pil(source, name or "image", least_side))
    if hasattr(source, "cpu"):  # a tensor; importing torch to ask would slow the start of those who have none
        source = source.detach().cpu().float().numpy()
    if isinstance(source, np.ndarray):
        return Radiograph(_from_array(source, name or "array"))
    name, data = _read_bytes(source, name)
    if not data:
        raise RadiographError(f"{name}: the file is empty")
    if data[128:132] == b"DICM" or name.lower().endswith(DICOM_SUFFIXES):
        return _from_dicom(data, name)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return Radiograph(_from_pil(image, name, least_side))
    except UnidentifiedImageError:
        raise RadiographError(f"{name}: not an image that can be read (PNG, JPEG, WebP, TIFF, BMP or DICOM)") from None
    except OSError as error:  # a file cut within its header
        raise RadiographError(f"{name}: damaged or truncated ({_first_line(error)})") from None


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
    low, high = _thumbnail_range(values, float(low), float(high))
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
    kind = np.float64 if values.dtype.kind == "f" else np.int64 if values.dtype.itemsize > 2 else np.int32
    bands, sums = np.zeros((rows, columns * factor), kind), np.zeros((rows, columns), kind)
    for step in range(factor):  # slices are added faster than numpy reduces over short axes
        bands += values[step : rows * factor : factor, : columns * factor]
    for step in range(factor):
        sums += bands[:, step::factor]
    lowest, highest = sums.min() / factor**2, sums.max() / factor**2
    return (lowest, highest) if lowest < highest else (low, high)


def _read_bytes(source: Any, name: str | None) -> tuple[str, bytes]:
    if isinstance(source, bytes | bytearray | memoryview):
        return name or "image", bytes(source)
    if hasattr(source, "read"):
        return name or str(getattr(source, "name", "image")), source.read()
    if not isinstance(source, str | os.PathLike):
        raise RadiographError(f"{name or 'image'}: cannot read a radiograph from {type(source).__name__}")
    path = Path(source)
    try:
        return name or str(path), path.read_bytes()
    except IsADirectoryError:
        raise RadiographError(f"{path}: is a folder, not a radiograph") from None
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise RadiographError(f"{path}: cannot be read ({reason})") from None


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise RadiographError(
            f"{name}: {width} x {height} pixels are more than {MAX_PIXELS // 10**6} million; shrink it"
        )


def _from_pil(image: Image.Image, name: str, least_side: int | None) -> np.ndarray:
    _check_size(*image.size, name)
    if getattr(image, "n_frames", 1) > 1:
        raise RadiographError(f"{name}: has {image.n_frames} frames; give one radiograph a file")
    if least_side is not None:
        image.draft("L", (least_side, least_side))  # only a JPEG not yet decoded heeds it
    try:
        image = ImageOps.exif_transpose(image)
        return stretch_to_8_bits(_grey(image), name)
    except RadiographError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds (OSError, SyntaxError, struct.error, ...)
        raise RadiographError(f"{name}: damaged or truncated ({_first_line(error)})") from None


def _grey(image: Image.Image) -> np.ndarray:
    if image.mode in WIDE_MODES:
        return np.asarray(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (255, 255):
            return np.asarray(rgba.convert("RGB").convert("L"))
        return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("L"))
    return np.asarray(image.convert("L"))


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
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        header = _dicom_header(dataset, name)
        values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    except RadiographError:
        raise
    except Exception as error:  # pydicom and its decoders raise whatever a broken file leads them to
        raise RadiographError(f"{name}: the DICOM file cannot be decoded ({_first_line(error)})") from None
    if str(dataset.PhotometricInterpretation) == "MONOCHROME1":  # the lowest value is the brightest
        values = values.max() - values
    return Radiograph(_from_array(values, name), **header)


def _dicom_header(dataset: Any, name: str) -> dict[str, Any]:
    if "PixelData" not in dataset:
        raise RadiographError(f"{name}: the DICOM file has no pixels")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise RadiographError(f"{name}: has {dataset.NumberOfFrames} frames; give one radiograph a file")
    _check_size(int(dataset.Columns), int(dataset.Rows), name)
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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
