"""Finding maps as pictures: one file for each positive finding of each radiograph."""

import hashlib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from cxrfpn.files import written_beside
from cxrfpn.prediction.inputs import InputError, bare
from cxrfpn.prediction.predicting import Prediction
from engine_cxrfpn import Engine
from overlay_cxrfpn import overlay

# File systems end a name at 255 bytes; the name of a finding and a suffix are still to come, and so is a process's.
LONGEST_STEM = 200


def save_maps(predictions: Iterable[Prediction], engine: Engine, folder: Path) -> Iterator[Prediction]:
    """Draw the maps of predictions that carry them into `folder`, and pass the predictions on.

    Raises:
        InputError: a picture cannot be written.
    """
    stems: set[str] = set()
    for prediction in predictions:
        if prediction.findings is not None:
            stem = picture_stem(prediction.image, stems)
            stems.add(stem)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _draw(prediction, engine, folder / stem)
            except OSError as error:  # apart from those of the file that the predictions themselves are written to
                raise InputError(f"{folder}: maps cannot be written ({error.strerror or error})") from None
        yield prediction


def _draw(prediction: Prediction, engine: Engine, start: Path) -> None:
    """One picture for each positive finding, whose name begins with `start`."""
    assert prediction.radiograph is not None and prediction.findings is not None
    pixels = prediction.radiograph.pixels
    for finding in prediction.findings:
        if finding["positive"]:
            placed = engine.place_map(finding["map"], *pixels.shape)
            # Renamed into its place, so that a link that stands there is replaced rather than followed.
            with written_beside(Path(f"{start}_{finding['label'].replace('/', '-')}.png")) as beside:
                overlay(pixels, placed).save(beside, "PNG")


def picture_stem(image: str, taken: Container[str] = ()) -> str:
    """Return the path of a radiograph as one name: a/b/film.png -> a_b_film.

    Of a long one, or where another radiograph has taken the name (film.png and film.dcm), its end behind a checksum.
    """
    stem = "_".join(bare(Path(image)).parts).strip("/_.")
    if len(stem.encode()) <= LONGEST_STEM and stem not in taken:
        return stem
    checksum = hashlib.sha256(image.encode()).hexdigest()[:12]
    end = stem.encode()[len(checksum) + 1 - LONGEST_STEM :].decode(errors="ignore")
    return f"{checksum}_{end}"
