"""A model over the images of a source, through the one inference path: its scores, and its maps where boxes are."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from answer_cxrfpn import Answer
from cxrfpn.choices import FIT
from cxrfpn.data.schema import Row, Source, SourceError
from cxrfpn.data.sharpness import SIDE_COLUMN, source_side
from cxrfpn.evaluation.localisation import GRID, Case, measure_map
from cxrfpn.prediction.stream import predict_stream
from engine_cxrfpn import Engine
from radiograph_cxrfpn import Radiograph

EXAMPLES = 12


@dataclass
class Run:
    """What a model made of a split.

    scores: a row an image, indexed by image id, a column for each finding, `source_side` and `fit`; cases: a finding
    map held against its boxes; examples: pixels [GRID,GRID] of a few images; unreadable: image id -> why.
    """

    scores: pd.DataFrame
    cases: list[Case] = field(default_factory=list)
    examples: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def run_model(
    engine: Engine,
    source: Source,
    metadata: pd.DataFrame,
    batch_size: int = 16,
    seed: int = 0,
    maps: bool = True,
) -> Run:
    """Score every image of `metadata` (rows of the source's own), with a progress bar.

    An image that cannot be read is left out and named. Images with boxes go through the maps as well, unless `maps` is
    False.

    Raises:
        SourceError: none of the images could be read.
    """
    wanted, chosen = set(metadata["image_id"]), _choose_examples(metadata, seed)
    records: dict[str, dict[str, float | None]] = {}
    run = Run(pd.DataFrame())
    rows = (row for part in source.parts() for row in source.rows(part, wanted))

    def keep(row: Row, radiograph: Radiograph) -> tuple[int, NDArray[np.uint8] | None]:
        example = Image.fromarray(radiograph.pixels).resize((GRID, GRID)) if row.image_id in chosen else None
        return source_side(row.image, radiograph.pixels), None if example is None else np.asarray(example)

    batches = predict_stream(
        engine,
        iter(lambda: list(islice(rows, batch_size)), []),
        _open,
        name_of=lambda row: row.image_id,
        maps=lambda row: maps and bool(row.boxes),  # they cost a little
        keep=keep,
    )
    with tqdm(total=len(wanted), desc="scoring", unit=" images", mininterval=1) as bar:
        for _, outcomes in batches:
            for outcome in outcomes:
                name = outcome.item.image_id
                if outcome.answer is None:
                    run.unreadable[name] = outcome.error or ""
                    continue
                assert outcome.kept is not None  # every image that has an answer was kept
                side, example = outcome.kept
                records[name] = {
                    **{finding["label"]: finding["score"] for finding in outcome.answer},
                    SIDE_COLUMN: side,
                    FIT: outcome.answer.fit,
                }
                if maps:
                    run.cases.extend(_cases(engine, outcome.item, outcome.answer))
                if example is not None:
                    run.examples[name] = example
            bar.update(len(outcomes))
    if not records:
        reason = next(iter(run.unreadable.values()), "the source yields none of them")
        raise SourceError(f"{source.name}: none of {len(wanted)} images could be scored ({reason})")
    run.scores = pd.DataFrame.from_dict(records, orient="index")[[*engine.findings, SIDE_COLUMN, FIT]].rename_axis(
        "image_id"
    )
    return run


def _open(row: Row) -> dict[str, object]:
    return {"image": row.content(), "age": row.age, "sex": row.sex, "view_position": row.view_position}


def _cases(engine: Engine, row: Row, answer: Answer) -> Iterator[Case]:
    """Hold the maps of an image against its boxes."""
    by_finding = {finding["label"]: finding for finding in answer}
    for name in sorted({box.finding for box in row.boxes} & by_finding.keys()):
        yield measure_map(
            engine.place_map(by_finding[name]["map"], GRID, GRID),
            [box for box in row.boxes if box.finding == name],
            image_id=row.image_id,
            patient_id=row.patient_id,
            finding=name,
            score=by_finding[name]["score"],
        )


def _choose_examples(metadata: pd.DataFrame, seed: int) -> set[str]:
    """Mostly images with findings: a random draw would show healthy chests."""
    ill = metadata["findings"].map(bool)
    few = EXAMPLES // 4
    parts = [(metadata[ill], EXAMPLES - few), (metadata[~ill], few)]
    return {name for rows, count in parts for name in rows["image_id"].sample(min(count, len(rows)), random_state=seed)}
