"""The header of a DICOM file -> the patient, and notes on what kind of picture it is."""

import re
from datetime import date

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .dicom_tags_cxrfpn import Header, tag, text
    from .patient_cxrfpn import Patient, unique
except ImportError:
    from dicom_tags_cxrfpn import Header, tag, text
    from patient_cxrfpn import Patient, unique

DATES = ("StudyDate", "AcquisitionDate", "ContentDate", "SeriesDate")
# Projection radiography, secondary captures of it, and what says nothing.
RADIOGRAPHS = frozenset(("CR", "DX", "RG", "DR", "XR", "OT", "SC", ""))
CHEST = re.compile(r"CHEST|THORAX|LUNG|RIB|CLAVIC|STERN|CXR|TORAX|WHOLE|UNKNOWN")
DAYS_A_YEAR = 365.25


def read_patient(dataset: Header) -> Patient:
    """Return what a header says of the patient, unknown where it is silent or makes no sense.

    The age is PatientAge or, where that is empty or blanked, the time from birth to the study.
    """
    patient = Patient()
    for field, values in {
        "age": (text(dataset, "PatientAge"), _age_by_dates(dataset)),
        "sex": (text(dataset, "PatientSex"),),
        "view_position": (text(dataset, "ViewPosition"), *_coded_views(dataset), _view_by_orientation(dataset)),
    }.items():
        read = [_lenient(field, value) for value in values]
        patient = patient.or_else(next((each for each in read if getattr(each, field) is not None), read[0]))
    return patient


def kind_notes(dataset: Header) -> tuple[str, ...]:
    """Return notes on what is no radiograph of a chest, by its header."""
    modality, part = text(dataset, "Modality").upper(), text(dataset, "BodyPartExamined").upper()
    notes = []
    if modality not in RADIOGRAPHS:
        notes.append(f"The header says that the modality is {modality[:16]}, not radiography.")
    if part and not CHEST.search(part):
        notes.append(f"The header says that the body part is {part[:16]}, not the chest.")
    return unique(notes)


def _lenient(field: str, value: str | float | None) -> Patient:
    try:
        return Patient(**{field: value})
    except ValueError:
        return Patient()


def _age_by_dates(dataset: Header) -> float | None:
    birth = _date(text(dataset, "PatientBirthDate"))
    study = next((day for day in (_date(text(dataset, keyword)) for keyword in DATES) if day), None)
    # Anonymisers write the first of January 1900 or 1901 for any date.
    if birth is None or study is None or (birth.month, birth.day, birth.year <= 1901) == (1, 1, True):
        return None
    return (study - birth).days / DAYS_A_YEAR if study >= birth else None


def _date(written: str) -> date | None:
    """Return a DICOM date, YYYYMMDD or, of old files, YYYY.MM.DD."""
    match = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", written)
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None


def _coded_views(dataset: Header) -> list[str]:
    """Return the meanings of the codes for the view (CID 4010), such as "postero-anterior" and "left lateral"."""
    return [text(item, "CodeMeaning") for item in tag(dataset, "ViewCodeSequence") or ()]


def _view_by_orientation(dataset: Header) -> str | None:
    """LATERAL where the rows of the picture run from back to front, or the other way."""
    orientation = tag(dataset, "PatientOrientation")
    return "LATERAL" if orientation is not None and str(next(iter(orientation), ""))[:1] in ("A", "P") else None
