"""Finding maps as pictures: one file for each positive finding of each radiograph."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from cxrfpn.prediction.predicting import Prediction
from overlay_cxrfpn import overlay
from pipeline_cxrfpn import ChestXrayFindingsPipeline

# File systems end a name at 255 bytes; the name of a finding and a suffix are still to come, and so is a process's.
LONGEST_STEM = 200


def save_maps(predictions: Iterable[Prediction], pipe: ChestXrayFindingsPipeline, folder: Path) -> Iterator[Prediction]:
    """Draw the maps of predictions that carry them into `folder`, and pass the predictions on.

    Raises:
        OSError: a picture cannot be written.
    """
    for prediction in predictions:
        if prediction.findings is not None:
            folder.mkdir(parents=True, exist_ok=True)
            pixels, stem = prediction.radiograph.pixels, picture_stem(prediction.image)
            for finding in prediction.findings:
                if finding["positive"]:
                    placed = pipe.image_processor.place_map(finding["map"], *pixels.shape)
                    overlay(pixels, placed).save(folder / f"{stem}_{finding['label']}.png")
        yield prediction


def picture_stem(image: str) -> str:
    """The path of a radiograph as one name: a/b/film.png -> a_b_film; of a long one the end, behind its checksum."""
    stem = "_".join(Path(image).with_suffix("").parts).strip("/_")
    if len(stem.encode()) <= LONGEST_STEM:
        return stem
    checksum = hashlib.sha256(stem.encode()).hexdigest()[:12]
    end = stem.encode()[len(checksum) + 1 - LONGEST_STEM :].decode(errors="ignore")
    return f"{checksum}_{end}"
