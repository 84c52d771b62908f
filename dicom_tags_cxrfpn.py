"""Values of a DICOM header that may be broken: what cannot be read counts as absent."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

# Enhanced files keep what may change from frame to frame in sequences of their own (PS3.3 C.7.6.16).
GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


class Header(Protocol):
    """What is used of a pydicom data set. pydicom is imported only where a DICOM file is decoded."""

    file_meta: Any  # a data set of its own, whose elements are of many types
    Rows: int
    Columns: int
    SamplesPerPixel: int
    NumberOfFrames: int
    BitsAllocated: int
    BitsStored: int
    PixelData: bytes

    def get(self, keyword: str) -> Any:
        """Return the value of an element, None where it is absent."""

    def __contains__(self, keyword: str) -> bool: ...

    def __delitem__(self, keyword: str) -> None: ...


def tag(dataset: Header, keyword: str) -> Any:
    """Return an element's value from the data set or, of an enhanced file, its functional groups; None where empty."""
    for part in (dataset, *_functional_groups(dataset)):
        try:
            value = part.get(keyword)
        except Exception:  # pydicom converts at access, and raises many kinds
            continue
        if value is not None and not (isinstance(value, str | bytes) and not value) and value != []:
            return value
    return None


def _functional_groups(dataset: Header) -> Iterator[Header]:
    for keyword in GROUPS:
        for group in _items(dataset, keyword)[:1]:
            for element in list(group):
                if element.VR == "SQ":
                    yield from element.value[:1]


def _items(dataset: Header, keyword: str) -> list[Iterable[Any]]:
    try:
        return list(dataset.get(keyword) or ())
    except Exception:
        return []


def numbers(dataset: Header, keyword: str) -> list[float]:
    """Return the numbers of an element, NaN for what is none; an empty list where it is absent."""
    value = tag(dataset, keyword)
    many = (
        [] if value is None else [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else value
    )
    return [_number(each) for each in many]


def whole(dataset: Header, keyword: str, default: int | None = None) -> int | None:
    """Return the first number of an element if it is whole."""
    number = next(iter(numbers(dataset, keyword)), math.nan)
    return int(number) if math.isfinite(number) and number == int(number) else default


def text(dataset: Header, keyword: str) -> str:
    """Return an element as text, "" where it is absent or has several values."""
    value = tag(dataset, keyword)
    return str(value).strip("\0 ") if value is not None and not isinstance(value, list | tuple) else ""


def _number(value: str | float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
