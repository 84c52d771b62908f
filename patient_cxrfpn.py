"""What is known of a patient: age, sex and view position, read from any form and encoded for the network."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

# The order of the patient vector, which the released weights expect. `Patient` names its fields in the order in which
# people write them.
PATIENT_INPUTS: tuple[str, ...] = ("age", "view_position", "sex")
PATIENT_KEYS: tuple[str, ...] = ("age", "sex", "view_position")
VIEW_POSITIONS: dict[str, float] = {"PA": 0.0, "AP": 1.0}
# Views that the network does not know: they are encoded as unknown, and noted.
OTHER_VIEWS: tuple[str, ...] = ("LATERAL", "OBLIQUE")
SEXES: dict[str, float] = {"M": 0.0, "F": 1.0}
AGE_SCALE_YEARS = 100.0
MAX_AGE_YEARS = 120.0

_UNKNOWN = frozenset(
    ("", "u", "unk", "unknown", "unspecified", "nan", "<na>", "nat", "na", "none", "null", "n/a", "-", "?")
)
_AGE = re.compile(
    r"(-?\d{1,400}(?:[.,]\d{1,40})?)\s*(y|m|w|d)?(?:(?<=y)(?:r|rs|ears?)|(?<=m)onths?|(?<=w)eeks?|(?<=d)ays?)?\.?"
)
_YEARS = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}
# Anonymisers write this in place of an age (DICOM, AS). A newborn's header has a birth date as well.
_BLANKED_AGE = re.compile(r"000[ymwd]?")
_SEXES = {
    **dict.fromkeys(("m", "male", "man", "boy"), "M"),
    **dict.fromkeys(("f", "female", "woman", "girl"), "F"),
    **dict.fromkeys(("o", "other", "n", "x", "i", "intersex", "indeterminate"), None),
}
_FRONTAL = {
    **dict.fromkeys(("pa", "postero anterior", "posteroanterior"), "PA"),
    **dict.fromkeys(("ap", "antero posterior", "anteroposterior"), "AP"),
}
_LATERAL_WORDS = frozenset(("lateral", "lat", "ll", "rl", "l", "llat", "rlat", "ml", "lm", "latl", "swimmers"))
_OBLIQUE_WORDS = frozenset(("oblique", "obl", "lao", "rao", "lpo", "rpo"))
# Of a frontal view, but it is not said which one.
_EITHER_WORDS = frozenset(
    ("frontal", "lld", "rld", "decubitus", "lordotic", "axial", "other", "supine", "erect", "costal")
)


class PatientValues(TypedDict, total=False):
    """Any of age in years, sex and view position as a mapping, None where unknown."""

    age: float | None
    sex: str | None
    view_position: str | None


@dataclass(frozen=True)
class Patient:
    """Age, sex and view position, None where unknown; each may be given in any form that people and files write.

    Args:
        age: years, as a number or as text: 63, "63", "063Y", "42 y", "006M". Ages outside 0 to 120 are unknown, with
            a note; so is "000Y", which anonymisers write, without one.
        sex: "M" or "F" in any case, "Male", "Female"; "O" and "U" are unknown.
        view_position: "PA" or "AP", also at the start of more ("AP SUPINE"). "LATERAL", "LL", "RL" and obliques are
            kept as "LATERAL" and "OBLIQUE", with a note: the network takes them for an unknown view.

    None, NaN, pandas' NA and empty text are unknown.

    Raises:
        ValueError: for what is no age, sex or view position at all, in one line.
    """

    age: float | None = None
    sex: str | None = None
    view_position: str | None = None
    notes: tuple[str, ...] = field(default=(), init=False, compare=False)

    def __post_init__(self) -> None:
        notes: list[str] = []
        values = {
            "age": _read_age(self.age, notes),
            "sex": _read_sex(self.sex),
            "view_position": _read_view(self.view_position, notes),
        }
        for name, value in {**values, "notes": tuple(notes)}.items():
            object.__setattr__(self, name, value)

    def encode(self) -> tuple[float, float, float]:
        """Return the patient vector in the order of `PATIENT_INPUTS`: (age / 100, PA 0 or AP 1, M 0 or F 1).

        NaN stands for unknown. The first number is at most 1.
        """
        age = math.nan if self.age is None else min(self.age / AGE_SCALE_YEARS, 1.0)
        return age, VIEW_POSITIONS.get(self.view_position or "", math.nan), SEXES.get(self.sex or "", math.nan)

    def or_else(self, other: "Patient") -> "Patient":
        """Return this patient with what is unknown taken from another, and the notes of both."""
        known = {key: getattr(self if getattr(self, key) is not None else other, key) for key in PATIENT_KEYS}
        merged = Patient(**known)
        object.__setattr__(merged, "notes", unique(self.notes + other.notes + merged.notes))
        return merged

    def values(self) -> PatientValues:
        """Return {"age": ..., "sex": ..., "view_position": ...}."""
        return {"age": self.age, "sex": self.sex, "view_position": self.view_position}


def unique(notes: Iterable[str]) -> tuple[str, ...]:
    """Return the notes in their order, each once."""
    return tuple(dict.fromkeys(notes))


def _text(value: object) -> str:
    """Return a value as lower-case text, "" for all that stands for unknown."""
    if value is None:
        return ""
    text = " ".join(str(value).lower().split())
    return "" if text in _UNKNOWN else text


def _read_age(value: object, notes: list[str]) -> float | None:
    text = _text(value)
    if not text or _BLANKED_AGE.fullmatch(text):
        return None
    match = _AGE.fullmatch(text)
    try:
        years = float(text) if match is None else float(match[1].replace(",", ".")) * _YEARS[(match[2] or "y")[0]]
    except ValueError:
        years = math.nan
    if math.isnan(years):
        raise ValueError(f"age {_shown(value)} is not a number of years; leave it out if it is unknown")
    if not 0 <= years <= MAX_AGE_YEARS:
        notes.append(f"The age {_shown(value)} is outside 0 to {MAX_AGE_YEARS:.0f} years and was taken as unknown.")
        return None
    return years


def _read_sex(value: object) -> str | None:
    text = _text(value)
    if text and text not in _SEXES:
        raise ValueError(f"sex {_shown(value)} is none of {', '.join(SEXES)}; leave it out if it is unknown")
    return _SEXES.get(text)


def _read_view(value: object, notes: list[str]) -> str | None:
    text = re.sub(r"[\s_/,.-]+", " ", _text(value)).strip()
    if not text:
        return None
    words = text.split()
    frontal = {view for name, view in _FRONTAL.items() if re.search(rf"\b{name}\b", text)}
    if len(frontal) == 1:
        return frontal.pop()
    if frontal or not _EITHER_WORDS.isdisjoint(words):
        return None
    for view, known in (("OBLIQUE", _OBLIQUE_WORDS), ("LATERAL", _LATERAL_WORDS)):
        if not known.isdisjoint(words):
            notes.append(f"The view is {view.lower()}, but the model knows frontal radiographs only.")
            return view
    raise ValueError(
        f"view position {_shown(value)} is none of {', '.join((*VIEW_POSITIONS, *OTHER_VIEWS))}; "
        "leave it out if it is unknown"
    )


def _shown(value: object) -> str:
    """Return a value as it stands in a message: on one line, and not too long."""
    return " ".join(repr(value).split())[:80]
