"""Read one radiograph, and describe the reading for the page: numbers, a picture and finding maps."""

import base64
import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from answer_cxrfpn import Answer
from demo.examples import drawn_findings
from demo.nih import label_of
from demo.uploads import Upload
from dicom_cxrfpn import read_dicom_patient
from engine_cxrfpn import Engine
from gate_cxrfpn import LEAST_FIT, NOTE
from overlay_cxrfpn import GLOW
from patient_cxrfpn import MAX_AGE_YEARS, VIEW_POSITIONS, Patient, PatientValues
from thresholds_cxrfpn import FindingAnswer

UNKNOWN = "unknown"
# Twice the largest chest detector. The bare reader takes more, and with them more time and memory.
MAX_PIXELS = 30_000_000
# Longer sides, in pixels: of the radiograph as the page shows it, and of the maps, which are smooth.
SHOWN_SIDE, MAP_SIDE = 1024, 128


@dataclass(frozen=True)
class Reading:
    """A radiograph that was read: its pixels [H,W] uint8, the patient, and the pipeline's findings."""

    name: str
    pixels: np.ndarray
    patient: PatientValues
    findings: Answer

    @property
    def is_chest(self) -> bool:
        """Whether it looks like what the network was trained on."""
        assert self.findings.fit is not None  # the demo's engine measures it for every film
        return self.findings.fit >= LEAST_FIT

    @property
    def notes(self) -> list[str]:
        """The notes of the findings without the one on the fit, which the page says in its own way."""
        return [note for note in self.findings.notes if note != NOTE]


class Reader:
    """Read uploads through one engine.

    Args:
        engine: the model, as `load_engine` gives it.
    """

    def __init__(self, engine: Engine):
        self.engine = engine

    def read(
        self, upload: Upload, patient: PatientValues, maps: bool = False, operating_point: str | None = None
    ) -> Reading:
        """Read one upload.

        Args:
            upload: with its bytes.
            patient: any of age, sex and view_position; a key that is there overrules the file's header, with None too.
            maps: whether findings carry their map.
            operating_point: whose thresholds to call by; None for the model's default.

        Raises:
            ValueError: an upload or a patient that cannot be used, in one line.
        """
        radiograph = replace(self.engine.read(upload.data, upload.name, MAX_PIXELS), **patient)
        [findings] = self.engine.answer([self.engine.prepare(radiograph)], operating_point, maps=maps)
        known = radiograph.patient.values()
        return Reading(upload.name, radiograph.pixels, known, findings)

    def show(self, reading: Reading, upload: Upload) -> dict[str, object]:
        """Return what the page draws: the reading, its picture and its maps as data URLs; no path and no header."""
        height, width = reading.pixels.shape
        scale = min(1.0, SHOWN_SIDE / max(height, width))
        shown = Image.fromarray(reading.pixels).resize((max(1, round(width * scale)), max(1, round(height * scale))))
        return {
            "name": reading.name,
            "patient": reading.patient,
            "is_chest": reading.is_chest,
            "fit": reading.findings.fit,
            "notes": reading.notes,
            "any_finding": reading.findings.any_finding,
            "drawn": drawn_findings(upload.data),
            "labelled": label_of(upload.data),
            "width": shown.width,
            "height": shown.height,
            "image": _data_url(shown, "JPEG", quality=90),
            "findings": [self._show_finding(finding, shown.width, shown.height) for finding in reading.findings],
        }

    def _show_finding(self, finding: FindingAnswer, width: int, height: int) -> dict[str, object]:
        shown: dict[str, object] = {
            "label": finding["label"],
            "score": finding["score"],
            "probability": finding["probability"],
            "call": finding["call"],
        }
        if not finding["map"].any():
            return {**shown, "map": None}
        scale = MAP_SIDE / max(width, height)
        placed = self.engine.place_map(finding["map"], max(8, round(height * scale)), max(8, round(width * scale)))
        return {**shown, "map": _data_url(_layer(placed), "PNG", transparency=bytes(range(256)), compress_level=3)}


def patient_from_form(age: str, sex: str, view_position: str) -> PatientValues:
    """Turn the fields of the page into the pipeline's keys, with None for what is unknown.

    Raises:
        ValueError: an age that is no number of years in 0 to 120.
    """
    try:
        patient: Patient | None = Patient(age=age)  # type: ignore[arg-type]  # it reads text too
    except ValueError:
        patient = None
    if patient is None or patient.notes:  # the visitor who typed an impossible age can correct it
        raise ValueError(
            f"the age must be a number of years from 0 to {MAX_AGE_YEARS:.0f}; leave it empty if it is unknown"
        )
    return {
        "age": patient.age,
        "sex": None if sex in (None, UNKNOWN) else sex,
        "view_position": None if view_position in (None, UNKNOWN) else view_position,
    }


def patient_in(upload: Upload) -> PatientValues | None:
    """Return what a DICOM header says of the patient, None where it is silent; None for any other file.

    Pixels are decoded once, by the reading.
    """
    patient = read_dicom_patient(upload.data, upload.name)
    return None if patient is None else patient.values()


def patient_to_form(patient: PatientValues) -> tuple[str, str, str]:
    """Turn the pipeline's keys into the fields of the page, for the values of a DICOM header."""
    age = patient["age"]
    view_position = patient["view_position"] if patient["view_position"] in VIEW_POSITIONS else UNKNOWN
    return "" if age is None else f"{age:g}", patient["sex"] or UNKNOWN, view_position


def _layer(placed: np.ndarray) -> Image.Image:
    """Turn a placed map [h,w] of 0..1 into a picture that, laid over the radiograph, looks as `overlay` blends it.

    Its 256 colours are the map's levels, each as opaque as it is high: a palette is small, and quick to make.
    """
    table = [np.interp(np.arange(256) / 255, np.linspace(0, 1, len(GLOW)), channel) for channel in GLOW.T]
    layer = Image.fromarray(np.rint(placed * 255).astype(np.uint8), "P")
    layer.putpalette(np.rint(np.stack(table, axis=1)).astype(np.uint8).tobytes())
    return layer


def _data_url(image: Image.Image, form: str, **settings: int | bytes) -> str:
    file = io.BytesIO()
    image.save(file, form, **settings)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
