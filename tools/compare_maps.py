"""Compare finding maps on RSNA's opacity boxes, to choose a head: python -m tools.compare_maps MODEL MODEL...

The boxes lie in training-list films of the validation fold, so that NIH's test boxes choose nothing. RSNA's readers
drew "lung opacity"; each film's maps are those of its own NIH findings that look like one.
"""

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from cxrfpn.data.schema import VALIDATION_FOLD, Box, Row
from cxrfpn.data.sources import open_source
from cxrfpn.evaluation.intervals import Bootstrap, interval
from cxrfpn.evaluation.localisation import GRID, Case, measure_map, point_at_mean_box
from loading_cxrfpn import load_pipeline

OPACITIES = ("Infiltration", "Consolidation", "Pneumonia", "Atelectasis", "Effusion")
BOX_SIDE = 1024  # the boxes are in pixels of the original


def read_boxes(path: Path) -> dict[str, list[Box]]:
    """Return the boxes of each film of the validation fold, by image id."""
    table = pd.read_csv(path)
    boxes: dict[str, list[Box]] = {}
    for row in table[table["fold"] == VALIDATION_FOLD].itertuples():
        box = Box("", row.x / BOX_SIDE, row.y / BOX_SIDE, row.width / BOX_SIDE, row.height / BOX_SIDE)
        boxes.setdefault(row.image_id, []).append(box)
    return boxes


def films(sources: Sequence[str], boxes: dict[str, list[Box]]) -> Iterator[Row]:
    """Yield the rows of the films that have boxes and a finding that looks like an opacity."""
    for name in sources:
        source = open_source(name)
        for part in source.parts():
            for row in source.rows(part, boxes):
                if set(row.findings) & set(OPACITIES):
                    yield row


def measure(model: str, rows: Sequence[Row], boxes: dict[str, list[Box]]) -> list[Case]:
    """Return a case for each film and opacity finding of it."""
    pipe, cases = load_pipeline(model), []
    for row in tqdm(rows, desc=model, unit=" films"):
        patient = {"age": row.age, "sex": row.sex, "view_position": row.view_position}
        answer = pipe({"image": Image.open(io.BytesIO(row.image)), **patient}, maps=True)
        for finding in answer:
            if finding["label"] in row.findings and finding["label"] in OPACITIES:
                drawn = [replace(box, finding=finding["label"]) for box in boxes[row.image_id]]
                case = measure_map(
                    pipe.image_processor.place_map(finding["map"], GRID, GRID),
                    drawn,
                    image_id=row.image_id,
                    patient_id=row.patient_id,
                    finding=finding["label"],
                    score=finding["score"],
                )
                cases.append(case)
    return sorted(cases, key=lambda case: (case.image_id, case.finding))


def shares(cases: Sequence[Case]) -> dict[str, np.ndarray]:
    """Return, for each case, whether its peak lies in a box, and whether it lies near one."""
    return {name: np.array([getattr(case, name) for case in cases], float) for name in ("pointing", "near")}


def _with_interval(values: np.ndarray, bootstrap: Bootstrap, form: str) -> str:
    bounds = interval(bootstrap.ratio(values, np.ones_like(values)))
    if bounds is None:
        return f"{values.mean():{form}}"
    low, high = bounds
    return f"{values.mean():{form}} ({low:{form}} to {high:{form}})"


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Compare finding maps on RSNA's opacity boxes of the validation fold.")
    parser.add_argument("models", nargs="+", help="model packages; the first is the reference")
    parser.add_argument("--boxes", type=Path, default=Path("../shared/nih-more/rsna_boxes.csv"), help="RSNA's boxes")
    parser.add_argument("--sources", nargs="+", default=["parquet:../shared/nih-mini", "parquet:../shared/nih-more"])
    arguments = parser.parse_args()
    boxes = read_boxes(arguments.boxes)
    rows = list({row.image_id: row for row in films(arguments.sources, boxes)}.values())
    cases = {model: measure(model, rows, boxes) for model in arguments.models}
    reference = shares(cases[arguments.models[0]])
    cases["the mean box of other patients"] = point_at_mean_box(cases[arguments.models[0]])
    bootstrap = Bootstrap.draw([case.patient_id for case in cases[arguments.models[0]]])
    for model, found in cases.items():
        for name, hits in shares(found).items():
            against = hits - reference[name]
            print(
                f"{model}: {name} {_with_interval(hits, bootstrap, '.3f')} of {len(hits)} cases, "
                f"against the first {_with_interval(against, bootstrap, '+.3f')}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
