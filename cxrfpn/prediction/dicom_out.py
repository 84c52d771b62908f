"""Write what was found in DICOM films as DICOM: a structured report and a secondary capture for each film."""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydicom import Dataset, dcmread

from cxrfpn.files import write_atomically
from cxrfpn.prediction.dicom_capture import draw_capture, make_capture
from cxrfpn.prediction.dicom_report import make_report
from cxrfpn.prediction.inputs import Input, InputError
from cxrfpn.prediction.maps import picture_stem
from cxrfpn.prediction.predicting import Prediction
from engine_cxrfpn import Engine


def model_version(engine: Engine) -> str:
    """Return what reports call the version of a model: the beginning of its weights' digest."""
    return (engine.weights_digest() or "unknown")[:12]


def save_reports(
    predictions: Iterable[Prediction],
    inputs: Sequence[Input],
    engine: Engine,
    folder: Path,
    unlinked: list[str],
    operating_point: str | None = None,
) -> Iterator[Prediction]:
    """Write the report and the capture of every prediction of a DICOM film into `folder`, and pass predictions on.

    Args:
        predictions: of the inputs, in their order, with maps.
        unlinked: gets a line for each film that has no report, since it is no DICOM file or its header lacks the links.
        operating_point: whose thresholds called; None for the model's default.

    Raises:
        InputError: a file cannot be written.
    """
    version = model_version(engine)
    stems: set[str] = set()
    for prediction, entry in zip(predictions, inputs, strict=True):
        film = read_header(entry.path) if prediction.findings is not None else None
        if film is not None:
            stem = picture_stem(prediction.image, stems)
            stems.add(stem)
            try:
                made = report_film(film, prediction, engine, version, operating_point)
            except Exception as error:  # of pydicom or highdicom, over what a header holds or lacks
                reason = " ".join(str(error).split())[:200]
                unlinked.append(f"{entry.path}: no report can be linked to this header ({reason})")
            else:
                _write(made, folder, stem)
        elif prediction.findings is not None:
            unlinked.append(f"{entry.path}: is no DICOM file")
        yield prediction


def read_header(path: Path) -> Dataset | None:
    """Read the header of a DICOM file; None for any other file."""
    try:
        film = dcmread(path, stop_before_pixels=True, force=False)
    except Exception:  # no DICOM file, or one that only the reader of pixels makes something of
        return None
    return film


def report_film(
    film: Dataset,
    prediction: Prediction,
    engine: Engine,
    version: str,
    operating_point: str | None = None,
) -> dict[str, Dataset]:
    """Return {"report": structured report, "capture": secondary capture} of a film's prediction with maps.

    Raises:
        ValueError: the header lacks what links a report to its film.
    """
    assert prediction.findings is not None and prediction.radiograph is not None
    answer = prediction.findings
    point = operating_point or engine.thresholds.default
    pixels = prediction.radiograph.pixels
    called = next((finding for finding in answer if finding["positive"]), None)
    shown = None if called is None else (called["label"], engine.place_map(called["map"], *pixels.shape))
    picture = draw_capture(pixels, shown, answer, version)
    return {
        "report": make_report(film, answer, version, point),
        "capture": make_capture(film, picture, version),
    }


def _write(made: dict[str, Dataset], folder: Path, stem: str) -> None:
    for kind, dataset in made.items():
        content = io.BytesIO()
        dataset.save_as(content, enforce_file_format=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / f"{stem}_{kind}.dcm", content.getvalue())
        except OSError as error:
            raise InputError(f"{folder}: reports cannot be written ({error.strerror or error})") from None
