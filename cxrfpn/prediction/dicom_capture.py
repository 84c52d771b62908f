"""One film's findings as a picture in DICOM: the film with a finding map, and the table beside it, burnt in."""

import textwrap
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from answer_cxrfpn import Answer
from cxrfpn.prediction.dicom_report import NAME, NOT_CLINICAL, linking_header, uid_of
from overlay_cxrfpn import overlay

SIDE = 1024
TABLE_WIDTH = 560
MARGIN = 24
# Where the columns of the table end, in pixels from its left edge.
COLUMNS = (310, 410, 512)
WHITE, GREY, AMBER = (255, 255, 255), (150, 150, 150), (255, 190, 70)


def make_capture(film: Dataset, picture: Image.Image, version: str) -> Dataset:
    """Make a secondary capture of an RGB picture, in the study of a film.

    Raises:
        ValueError: the header lacks what links a capture to its film.
    """
    capture = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=linking_header(film),
        pixel_array=np.asarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        series_instance_uid=uid_of(film, version, "capture series"),
        series_number=9902,
        sop_instance_uid=uid_of(film, version, "capture"),
        instance_number=1,
        manufacturer=NAME,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    capture.SeriesDescription = f"{NAME} {version}: {NOT_CLINICAL.lower()}"
    capture.BurnedInAnnotation = "YES"
    capture.BodyPartExamined = "CHEST"
    return capture


def draw_capture(
    pixels: NDArray[np.uint8],
    shown: tuple[str, NDArray[np.float32]] | None,
    answer: Answer,
    version: str,
) -> Image.Image:
    """Draw the picture of a capture.

    Args:
        pixels: [H,W] of the film.
        shown: the finding whose map is laid over it, and the map [H,W] of 0..1; None for the film alone.
        answer: of the pipeline.
        version: of the model.
    """
    film = overlay(pixels, shown[1]) if shown else Image.fromarray(pixels).convert("RGB")
    film.thumbnail((SIDE, SIDE))
    picture = Image.new("RGB", (film.width + TABLE_WIDTH, 2 * SIDE))
    picture.paste(film, (0, 0))
    draw, left, line = ImageDraw.Draw(picture), film.width + MARGIN, MARGIN

    def write(text: str, colour: tuple[int, int, int] = WHITE, size: int = 20, columns: Sequence[str] = ()) -> None:
        nonlocal line
        font = ImageFont.load_default(size)
        draw.text((left, line), text, colour, font)
        for right, column in zip(COLUMNS, columns, strict=False):
            draw.text((left + right, line), column, colour, font, anchor="ra")
        line += round(1.5 * size)

    write(NOT_CLINICAL.upper(), AMBER, 26)
    write(f"{NAME} {version}", GREY, 16)
    write(f"Map of {_pretty(shown[0])}" if shown else "No map: no finding is called", GREY, 16)
    line += 10
    write("", GREY, 16, ("score", "threshold", "call"))
    for finding in [answer.any_finding, *answer] if answer.any_finding else answer:
        colour = AMBER if finding["positive"] else WHITE
        numbers = (f"{finding['score']:.3f}", f"{finding['threshold']:.3f}")
        write(_pretty(finding["label"]), colour, 20, (*numbers, finding["call"] or ""))
        line += 10 if finding is answer.any_finding else 0
    line += 10
    write("Amber: score at or above its threshold. A score is no probability.", GREY, 14)
    write("The call goes by limits of its own (conformal prediction), not by the threshold.", GREY, 14)
    for note in answer.notes:
        for row in textwrap.wrap(note, 72):
            write(row, AMBER, 14)
    return picture.crop((0, 0, picture.width, max(film.height, line + MARGIN)))


def _pretty(label: str) -> str:
    return label[0].upper() + label[1:].replace("_", " ")
