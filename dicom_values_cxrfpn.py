"""Stored values of a DICOM image -> the grey levels that a viewer shows (PS3.3 C.7.6.3, C.11.1, C.11.2 and C.8.11).

The order is the standard's: padding is set aside, then modality, value of interest, polarity. Where a header cannot be
meant as it stands, the pixels decide, and a note says so. Bone is bright in what comes out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .dicom_bits_cxrfpn import true_values
    from .dicom_tags_cxrfpn import Header, numbers, tag, text, whole
except ImportError:
    from dicom_bits_cxrfpn import true_values
    from dicom_tags_cxrfpn import Header, numbers, tag, text, whole

# Values [N] float64 -> values [N] float64.
Transform = Callable[[np.ndarray], np.ndarray]
# A window or table is left out if fewer pixels than this share lie between its black and its white.
LEAST_SHOWN = 0.01
# Windows are tried on about so many pixels a side.
PROBE_SIDE = 256
# Up to so many different values are looked up in a table; others are computed pixel by pixel.
MOST_LEVELS = 2**16
MOST_PADDING = 0.5
PROCESSING_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.1.{kind}" for kind in ("1.1", "2.1", "3.1"))


@dataclass(frozen=True)
class Shown:
    """Values [H,W] of any real type, to be stretched; whether they are to be inverted; where [H,W] there is padding."""

    values: np.ndarray
    is_inverted: bool
    padding: np.ndarray | None
    notes: tuple[str, ...]


def shown_values(frame: np.ndarray, dataset: Header) -> Shown:
    """Take a monochrome frame through its header as a viewer does.

    Args:
        frame: [H,W], the stored values as the decoder gives them, unused bits included.
        dataset: of pydicom.

    Raises:
        ValueError: every pixel is padding, or rescaled values are not finite; in a few words, without the file's name.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of a rescale slope beyond all numbers
        return _shown_values(frame, dataset)


def _shown_values(frame: np.ndarray, dataset: Header) -> Shown:
    notes: list[str] = []
    values, padding = true_values(frame, dataset, notes)
    seen = values if padding is None else values[~padding]
    if not seen.size:
        raise ValueError("every pixel is padding")
    if padding is not None and padding.mean() > MOST_PADDING:
        notes.append(f"Padding fills {padding.mean():.0%} of the picture.")
    low, high = seen.min(), seen.max()
    step = max(1, min(values.shape) // PROBE_SIDE)
    sparse = (slice(None, None, step),) * 2
    probe = (values[sparse] if padding is None else values[sparse][~padding[sparse]]).astype(np.float64)
    probe = probe if probe.size else seen.astype(np.float64)
    transforms = _transforms(dataset, probe, low, high, notes)
    is_inverted = _is_inverted(dataset, _rises(transforms, probe), notes)
    if transforms:
        values = _apply(transforms, values, int(low), int(high))
    return Shown(values, is_inverted, padding, tuple(notes))


def _apply(transforms: list[Transform], values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Transform [H,W] integers; up to MOST_LEVELS of them through a table of 16-bit levels, which is much faster."""

    def transform(levels: np.ndarray) -> np.ndarray:
        for each in transforms:
            levels = each(levels)
        return levels

    if high - low >= MOST_LEVELS or values.dtype.itemsize > 2:
        return transform(values.astype(np.float64))
    levels = transform(np.arange(low, high + 1, dtype=np.float64))
    least, most = levels.min(), levels.max()
    if not np.isfinite(most - least):
        raise ValueError("its rescaled values are not finite")
    if least == most:
        return np.full(values.shape, least)
    # The table runs over all that 16 bits can hold, in the order in which they wrap around: padding finds a place too.
    table = np.zeros(MOST_LEVELS, np.uint16)
    table[: len(levels)] = np.rint((levels - least) * ((MOST_LEVELS - 1) / (most - least)))
    places = values.astype(np.uint16, copy=False) if values.dtype.itemsize == 1 else values.view(np.uint16)
    return np.roll(table, low % MOST_LEVELS)[places]


def _transforms(
    dataset: Header, probe: np.ndarray, low: np.integer, high: np.integer, notes: list[str]
) -> list[Transform]:
    """Return the modality's and the value of interest's transform, each left out where it would change nothing."""
    found = []
    modality = _modality(dataset, float(low), float(high), notes)
    if modality is not None:
        found.append(modality)
        probe = modality(probe)
    candidates = list(_values_of_interest(dataset, probe))
    for each in candidates:
        if _shows(each(probe)):
            found.append(each)
            break
    else:
        if candidates:
            notes.append("No window in the header shows the picture, so its whole range is shown.")
    return found


def _shows(levels: np.ndarray) -> bool:
    """Whether enough of the levels, 0 to 1, lie between black and white, and are not all the same."""
    inside = (levels > 0.005) & (levels < 0.995)
    return bool(inside.mean() >= LEAST_SHOWN and np.ptp(levels) > 0.005)


def _modality(dataset: Header, low: float, high: float, notes: list[str]) -> Transform | None:
    for item in tag(dataset, "ModalityLUTSequence") or ():
        if table := _table(dataset, item, low, high):
            return table
    slope, intercept = (next(iter(numbers(dataset, name)), None) for name in ("RescaleSlope", "RescaleIntercept"))
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if not np.isfinite((slope, intercept)).all() or slope == 0:
        notes.append("The header's rescale slope or intercept cannot be used, so the values are shown without them.")
        return None
    return None if (slope, intercept) == (1, 0) else lambda values: values * slope + intercept


def _values_of_interest(dataset: Header, probe: np.ndarray) -> Iterator[Transform]:
    """Return the header's tables and windows in their order, those left out that no viewer can use."""
    low, high = float(probe.min()), float(probe.max())
    for item in tag(dataset, "VOILUTSequence") or ():
        if table := _table(dataset, item, low, high):
            yield _levelled(table, item)
    function = text(dataset, "VOILUTFunction").upper()
    for centre, width in zip(numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth"), strict=False):
        if np.isfinite((centre, width)).all() and width > 0:
            yield _window(centre, width, function)


def _window(centre: float, width: float, function: str) -> Transform:
    """Return a window as PS3.3 C.11.2.1.2 and C.11.2.1.3 define it, onto 0 to 1."""
    if function == "SIGMOID":
        return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT" or width <= 1:  # LINEAR is not defined for a width below 1
        return lambda values: ((values - centre) / width + 0.5).clip(0, 1)
    return lambda values: ((values - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)


def _levelled(table: "_Table", item: Header) -> Transform:
    least, most = table.entries.min(), table.entries.max()
    return lambda values: (table(values) - least) / max(most - least, 1)


@dataclass(frozen=True)
class _Table:
    """A look-up table: values below and above it take its first and last entry."""

    first: float
    entries: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return self.entries[np.rint(values - self.first).clip(0, len(self.entries) - 1).astype(np.int64)]


def _table(dataset: Header, item: Header, low: float, high: float) -> _Table | None:
    """Read the look-up table of a sequence's item; None where it has no entries.

    Descriptor and entries come as 16-bit words, signed or not as the writer pleased; entries of 8 bits also two in a
    word (PS3.3 C.11.1.1).

    Args:
        low, high: the values that are looked up.
    """
    descriptor = [int(number) for number in numbers(item, "LUTDescriptor") if np.isfinite(number)]
    if len(descriptor) != 3:
        return None
    count, bits = descriptor[0] % MOST_LEVELS or MOST_LEVELS, descriptor[2]
    data = tag(item, "LUTData")
    if isinstance(data, bytes):
        order = "<" if _is_little_endian(dataset) else ">"
        words = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
    else:
        words = np.array([int(word) % MOST_LEVELS for word in np.atleast_1d([] if data is None else data)], "<u2")
    if bits <= 8 and len(words) < count and len(words) == (count + 1) // 2:
        words = words.astype("<u2").view(np.uint8)  # the first of two entries is the lower byte
    entries = words[:count].astype(np.float64)
    if len(entries) < 2:
        return None
    unsigned = descriptor[1] % MOST_LEVELS
    signed = unsigned - MOST_LEVELS if unsigned >= MOST_LEVELS // 2 else unsigned
    first = max(unsigned, signed, key=lambda first: min(high, first + count - 1) - max(low, first))
    return _Table(first, entries)


def _is_little_endian(dataset: Header) -> bool:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    return syntax is None or syntax.is_private or syntax.is_little_endian


def _rises(transforms: list[Transform], probe: np.ndarray) -> bool:
    """Whether higher stored values are shown brighter, before any inversion."""
    ends = np.array([probe.min(), probe.max()])
    for each in transforms:
        ends = each(ends)
    return bool(ends[1] >= ends[0])


def _is_inverted(dataset: Header, rises: bool, notes: list[str]) -> bool:
    """Whether black and white must change places for bone to be bright."""
    photometric, shape = text(dataset, "PhotometricInterpretation"), text(dataset, "PresentationLUTShape")
    is_inverted = photometric == "MONOCHROME1"
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        notes.append("The header does not say whether low values are black or white; they are shown black.")
    elif (photometric, shape) == ("MONOCHROME2", "INVERSE"):
        is_inverted = True
        notes.append(
            "The header says MONOCHROME2 with an INVERSE presentation, which vendors read both ways; shown inverted."
        )
    elif (photometric, shape) == ("MONOCHROME1", "IDENTITY"):
        notes.append(
            "The header says MONOCHROME1 with an IDENTITY presentation, which vendors read both ways; shown inverted."
        )
    # 1: a low value stands for little radiation, as behind bone; -1: a high value does.
    sign = whole(dataset, "PixelIntensityRelationshipSign")
    is_for_processing = (
        text(dataset, "PresentationIntentType") == "FOR PROCESSING"
        or text(dataset, "SOPClassUID") in PROCESSING_CLASSES
    )
    if is_for_processing:
        notes.append("The pixels are FOR PROCESSING: they lack the contrast that a viewer is given.")
        if sign in (1, -1):
            is_inverted = rises == (sign == 1)
    elif sign in (1, -1) and (rises != is_inverted) != (sign == -1):
        notes.append("The header contradicts itself on whether bone is bright; shown by its PhotometricInterpretation.")
    return is_inverted
