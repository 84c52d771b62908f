"""The bits of a DICOM frame -> the values that they really hold, and which pixels are padding (PS3.5 8.1)."""

from collections.abc import Callable

import numpy as np

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .dicom_tags_cxrfpn import Header, whole
except ImportError:
    from dicom_tags_cxrfpn import Header, whole

# Unsigned integers, as they are stored -> the values that they stand for.
Reading = Callable[[np.ndarray], np.ndarray]
# Rows that are compared to tell which reading of the bits is right.
PROBE_ROWS = 64
# How much smaller the jumps from pixel to pixel must be for the header's sign to be taken for wrong.
MUCH_SMOOTHER = 0.8


def true_values(frame: np.ndarray, dataset: Header, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Interpret [H,W] integers, unused bits included, by the header or, where it cannot be right, by the pixels.

    Returns:
        values [H,W] of an integer type, and the mask [H,W] of padding, None where there is none.
    """
    allocated = 8 * frame.dtype.itemsize
    frame = frame.astype(frame.dtype.newbyteorder("="), copy=False)
    raw = frame.view(f"u{frame.dtype.itemsize}")
    is_signed = whole(dataset, "PixelRepresentation") == 1
    stored = whole(dataset, "BitsStored", allocated)
    stored = stored if 1 <= stored <= allocated else allocated
    shift = min(max(whole(dataset, "HighBit", stored - 1) - (stored - 1), 0), allocated - stored)
    limits = _padding_limits(dataset, allocated)
    padding = _within(_signed(raw) if is_signed else raw, limits, is_signed, allocated)
    seen = raw if padding is None else raw[~padding]
    if not seen.size:
        return raw, padding
    lies_low = shift > 0 and int(np.bitwise_or.reduce(seen, axis=None)) & ((1 << shift) - 1) > 0
    header, others, factor = _readings(seen, stored, 0 if lies_low else shift, is_signed)
    read = _smoothest(raw, padding, header, others, factor)
    if read is not header or lies_low:
        notes.append("The header is wrong about the pixels' bits (BitsStored, HighBit or sign); read as they are.")
    values = read(raw)
    if limits is not None and not np.shares_memory(values, raw):  # padding as the stored bits spell it
        more = _within(values, limits, is_signed, allocated)
        padding = more if padding is None else padding if more is None else padding | more
    return values, padding


def _readings(seen: np.ndarray, stored: int, shift: int, is_signed: bool) -> tuple[Reading, list[Reading], float]:
    """Return the header's reading, the others that its bits allow, and how much smoother those must be.

    Args:
        seen: [N] unsigned, the pixels that are no padding.
        shift: how far the stored bits lie above the lowest.
    """

    def masked(raw: np.ndarray) -> np.ndarray:
        return raw & ((1 << stored) - 1)

    def extended(raw: np.ndarray) -> np.ndarray:
        unused = 8 * raw.dtype.itemsize - stored
        return _signed(raw << unused) >> unused

    header = extended if is_signed else masked
    if shift:
        return lambda raw: header(raw >> shift), [], MUCH_SMOOTHER
    half, most = 1 << (stored - 1), int(seen.max())
    if most < 1 << stored:  # the unused bits are zero
        header = header if is_signed and most >= half else _unchanged
        has_both_signs = int(seen.min()) < half <= most
        return header, [_unchanged if is_signed else extended] * has_both_signs, MUCH_SMOOTHER
    least, most = int(_signed(seen).min()), int(_signed(seen).max())
    if is_signed and -half <= least and most < half:  # they repeat the sign, as is usual
        return _signed, [masked] * (least < 0 <= most), MUCH_SMOOTHER
    # They are used: the values have more bits than the header says, or the bits are an overlay's.
    return header, [_signed, _unchanged], 1.0


def _smoothest(
    raw: np.ndarray, padding: np.ndarray | None, header: Reading, others: list[Reading], factor: float
) -> Reading:
    """Return the header's reading, unless another is smoother by this factor: a wrong one is torn where values wrap."""
    if not others:
        return header
    rows = slice(None, None, max(1, len(raw) // PROBE_ROWS))
    beside = None if padding is None else padding[rows, 1:] | padding[rows, :-1]

    def roughness(read: Reading) -> float:
        """Return the mean difference between neighbours in a row."""
        steps = np.abs(np.diff(read(raw[rows]).astype(np.int64), axis=1))
        steps = steps if beside is None else steps[~beside]
        return float(steps.mean()) if steps.size else 0.0

    best = min(others, key=roughness)
    return best if roughness(best) < factor * roughness(header) else header


def _unchanged(raw: np.ndarray) -> np.ndarray:
    return raw


def _signed(raw: np.ndarray) -> np.ndarray:
    return raw.view(raw.dtype.str.replace("u", "i"))


def _padding_limits(dataset: Header, allocated: int) -> tuple[int, int] | None:
    value = whole(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = whole(dataset, "PixelPaddingRangeLimit", value)
    return value % (1 << allocated), limit % (1 << allocated)


def _within(values: np.ndarray, limits: tuple[int, int] | None, is_signed: bool, allocated: int) -> np.ndarray | None:
    """Where values lie between the limits of padding, which are bits as the pixels' are; None where nowhere."""
    if limits is None:
        return None
    half = 1 << (allocated - 1)
    low, high = sorted(limit - 2 * half if is_signed and limit >= half else limit for limit in limits)
    inside = values == low if low == high else (values >= low) & (values <= high)
    return inside if inside.any() else None
