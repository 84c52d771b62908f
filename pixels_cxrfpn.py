"""Pixel values of any range -> 8-bit grey; what cannot be a radiograph's is refused in one line."""

import numpy as np

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .errors_cxrfpn import CxrFpnError
except ImportError:
    from errors_cxrfpn import CxrFpnError

# 100 megapixels is 7 times the largest detector; beyond it a small file may ask for all of the memory.
MAX_PIXELS = 100_000_000
# As much as JPEG and DICOM can say; the time to shrink a strip of pixels grows with its length.
MAX_SIDE = 65_535
# What lies beyond its range is an error in the file, and overflows in arithmetic.
# The range of single precision, as plain floats: numpy would cast what it compares with its own.
LEAST, MOST = (float(limit) for limit in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
# The scale at which the range of grey levels is measured, in pixels of the shorter side.
THUMBNAIL_SIDE = 128


class RadiographError(CxrFpnError):
    """What cannot be read as a radiograph. The message is one line: the name, what is wrong, what to do."""


def stretch_to_8_bits(values: np.ndarray, name: str = "image", padding: np.ndarray | None = None) -> np.ndarray:
    """Map the range that the radiograph takes at thumbnail scale, linearly, onto 0..255; what lies outside is clipped.

    A range of single pixels would change with every reduction (noise, the ringing of JPEG, the edges of markers), and
    the same radiograph of 1024 and of 384 pixels would come out up to 15 grey levels apart.

    Args:
        values: [H,W] of any real type.
        name: what errors call it.
        padding: [H,W] bool, True where a pixel is none of the picture; the range leaves these out.

    Returns:
        [H,W] uint8; an image under 256 pixels spans 0 to 255 exactly.

    Raises:
        RadiographError: for values that are not finite, or all the same.
    """
    if values.size == 0:
        raise RadiographError(f"{name}: has no pixels")
    seen = values if padding is None else values[~padding]
    low, high = seen.min(), seen.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RadiographError(f"{name}: has pixels that are not finite numbers")
    if low == high:
        raise RadiographError(f"{name}: every pixel has the value {low:g}, so there is nothing to see")
    low, high = float(low), float(high)
    if not LEAST <= high - low <= MOST:
        raise RadiographError(f"{name}: pixels from {low:g} to {high:g} are no grey levels; rescale them")
    low, high = _thumbnail_range(values, low, high, padding)
    if values.dtype == np.uint8 and low == 0 and high == 255:
        return values
    if values.dtype in (np.uint8, np.uint16):  # a table look-up is several times faster than arithmetic on pixels
        table = (np.arange(np.iinfo(values.dtype).max + 1, dtype=np.float64) - low) * (255 / (high - low))
        return np.take(np.rint(table).clip(0, 255).astype(np.uint8), values)
    return np.rint((values.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def _thumbnail_range(
    values: np.ndarray, low: float, high: float, padding: np.ndarray | None = None
) -> tuple[float, float]:
    """Lowest and highest mean over squares that leave 128 to 255 pixels a side; low and high where those are equal.

    Squares that padding lies in are left out.
    """
    factor = min(values.shape) // THUMBNAIL_SIDE
    if factor < 2:
        return low, high
    sums = _square_sums(values, factor)
    if padding is not None:
        sums = sums[_square_sums(padding.view(np.uint8), factor) == 0]
        if not sums.size:
            return low, high
    lowest, highest = sums.min() / factor**2, sums.max() / factor**2
    return (lowest, highest) if highest - lowest >= LEAST else (low, high)


def _square_sums(values: np.ndarray, factor: int) -> np.ndarray:
    rows, columns = values.shape[0] // factor, values.shape[1] // factor
    kinds = {1: np.int32, 2: np.int32, 4: np.int64}  # whose sums cannot overflow
    kind = np.float64 if values.dtype.kind == "f" else kinds.get(values.dtype.itemsize, np.float64)
    bands, sums = np.zeros((rows, columns * factor), kind), np.zeros((rows, columns), kind)
    for step in range(factor):  # slices are added faster than numpy reduces over short axes
        bands += values[step : rows * factor : factor, : columns * factor]
    for step in range(factor):
        sums += bands[:, step::factor]
    return sums


def grey_of_array(array: np.ndarray, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Turn an array [H,W], [H,W,C] or [C,H,W] of 1, 3 or 4 channels and any numeric type into [H,W] uint8.

    Raises:
        RadiographError: another shape or type, too many pixels, or none that `stretch_to_8_bits` takes.
    """
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
    check_size(array.shape[1], array.shape[0], name, max_pixels)
    return stretch_to_8_bits(array.astype(np.uint8) if array.dtype == bool else array, name)


def check_size(width: int, height: int, name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Raise a RadiographError for an image that would take more memory, or time, than any radiograph."""
    if max(width, height) > MAX_SIDE or width * height > max_pixels:
        raise RadiographError(
            f"{name}: {width} x {height} pixels are more than {max_pixels / 10**6:g} million, or a side is longer than "
            f"{MAX_SIDE}; shrink it"
        )


def printable(text: str) -> str:
    """Return a name that fits in a line of text: line ends, controls and invalid Unicode become a question mark."""
    return "".join(character if character.isprintable() else "?" for character in text)


def in_one_line(error: object) -> str:
    """Return the text of an error or another object, as it may stand in a message of ours."""
    return printable(" ".join(str(error).split()))[:200] or type(error).__name__
