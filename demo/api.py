"""Named endpoints for programs: /predict and /predict_batch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import gradio as gr

from answer_cxrfpn import Answer
from demo.batch import read_rows
from demo.reading import UNKNOWN, Reader
from demo.uploads import Batch, clean_name, read_upload
from patient_cxrfpn import SEXES, VIEW_POSITIONS, Patient, PatientValues

T = TypeVar("T")


def add_endpoints(reader: Reader, limits: Mapping[str, Mapping[str, str | int]]) -> None:
    """Add both endpoints to the page that is being built.

    They use components that are never shown: through them gradio checks that a file is an upload, and describes the
    types to clients.

    Args:
        reader: reads the uploads.
        limits: gradio's limits of how many calls run at once, for the key "reading" and for "batch".
    """

    def predict(
        image: str,
        age: float | None = None,
        sex: str = UNKNOWN,
        view_position: str = UNKNOWN,
        operating_point: str | None = None,
    ) -> dict[str, object]:
        """Return the findings of one radiograph (PNG, JPEG, WebP, TIFF, BMP or DICOM), the highest score first.

        Age, sex and view position that are left out are read from a DICOM header, where there is one.
        """
        name = clean_name(Path(image or "").name)
        try:
            patient = _known(age, sex, view_position)
            reading = reader.read(read_upload(_given(image)), patient, operating_point=operating_point or None)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return {"image": name, "patient": reading.patient, **_answer(reading.findings, reading.is_chest)}

    def predict_batch(images: list[str], operating_point: str | None = None) -> list[dict[str, object]]:
        """Return the findings of up to 200 radiographs, or zips of them; an error for a file that cannot be used."""
        try:
            reader.engine.thresholds.at(operating_point or None)  # refused once, not in every row
            rows = list(read_rows(reader, Batch(_given(images)), operating_point or None))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return [
            {"image": row["name"], "error": row["error"]}
            if "error" in row
            else {"image": row["name"], **_answer(row["findings"], row["is_chest"])}
            for row in rows
        ]

    image = gr.File(label="image", visible=False)
    images = gr.File(label="images", file_count="multiple", visible=False)
    age = gr.Number(None, label="age", visible=False)
    sex = gr.Radio([UNKNOWN, *SEXES], value=UNKNOWN, label="sex", visible=False)
    view_position = gr.Radio([UNKNOWN, *VIEW_POSITIONS], value=UNKNOWN, label="view_position", visible=False)
    names = list(reader.engine.thresholds.operating_points)
    operating_point = gr.Dropdown(names, value=reader.engine.thresholds.default, label="operating_point", visible=False)
    answer = gr.JSON(label="findings", visible=False)
    gr.Button(visible=False).click(
        predict, [image, age, sex, view_position, operating_point], answer, api_name="predict", **limits["reading"]
    )
    gr.Button(visible=False).click(
        predict_batch, [images, operating_point], answer, api_name="predict_batch", **limits["batch"]
    )


def _given(upload: T) -> T:
    if not upload:
        raise ValueError("there is no file in the request; upload one first")
    return upload


def _known(age: float | None, sex: str, view_position: str) -> PatientValues:
    """Return what the caller says of the patient; the file's header is asked for the rest.

    Raises:
        ValueError: an impossible age. In a file it counts as unknown, but a caller can correct it.
    """
    known: PatientValues = {}
    if age is not None:
        known["age"] = age
    if sex not in (None, UNKNOWN):
        known["sex"] = sex
    if view_position not in (None, UNKNOWN):
        known["view_position"] = view_position
    if notes := Patient(**known).notes:
        raise ValueError(notes[0])
    return known


def _answer(findings: Answer, is_chest: bool) -> dict[str, object]:
    return {"looks_like_a_chest_radiograph": is_chest, **findings.to_dict()}
