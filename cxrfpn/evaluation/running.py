"""A model over the images of a source, through the one inference path: its scores, and its maps where boxes are."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from cxrfpn.data.schema import Row, Source, SourceError
from cxrfpn.data.sharpness import SIDE_COLUMN, source_side
from cxrfpn.evaluation.localisation import GRID, Case, measure_map
from pipeline_cxrfpn import ChestXrayFindingsPipeline
from radiograph_cxrfpn import Radiograph

EXAMPLES = 12
_READERS = 2


@dataclass
class Run:
    """What a model made of a split.

    scores: a row an image, indexed by image id, a column for each finding and `source_side`; cases: a finding map
    held against its boxes; examples: pixels [GRID,GRID] of a few images; unreadable: image id -> why.
    """

    scores: pd.DataFrame
    cases: list[Case] = field(default_factory=list)
    examples: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def run_model(
    pipe: ChestXrayFindingsPipeline,
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
    records: dict[str, dict[str, float]] = {}
    run = Run(pd.DataFrame())
    rows = (row for part in source.parts() for row in source.rows(part, wanted))
    with tqdm(total=len(wanted), desc="scoring", unit=" images", mininterval=1) as bar:
        for batch in _read_ahead(pipe, rows, batch_size, run.unreadable):
            # Maps cost a little; only images that somebody drew boxes on need them.
            for with_maps in (False, True):
                members = [(row, radiograph) for row, radiograph in batch if (maps and bool(row.boxes)) == with_maps]
                for row, radiograph, answer in _answers(pipe, members, with_maps):
                    scores = {finding["label"]: finding["score"] for finding in answer}
                    records[row.image_id] = {**scores, SIDE_COLUMN: source_side(row.image, radiograph.pixels)}
                    if with_maps:
                        run.cases.extend(_cases(pipe, row, radiograph, answer))
                    if row.image_id in chosen:
                        run.examples[row.image_id] = np.asarray(Image.fromarray(radiograph.pixels).resize((GRID, GRID)))
            bar.update(len(records) + len(run.unreadable) - bar.n)
    if not records:
        reason = next(iter(run.unreadable.values()), "the source yields none of them")
        raise SourceError(f"{source.name}: none of {len(wanted)} images could be scored ({reason})")
    run.scores = pd.DataFrame.from_dict(records, orient="index")[[*pipe.model.findings, SIDE_COLUMN]].rename_axis(
        "image_id"
    )
    return run


def _read_ahead(
    pipe: ChestXrayFindingsPipeline, rows: Iterator[Row], batch_size: int, unreadable: dict[str, str]
) -> Iterator[list[tuple[Row, Radiograph]]]:
    """Batches of decoded radiographs; the next one is read while the network works on this one."""

    def read(row: Row) -> Radiograph:
        return pipe.image_processor.read(row.content(), row.image_id)

    with ThreadPoolExecutor(_READERS) as pool:

        def start() -> list[tuple[Row, Future]]:
            return [(row, pool.submit(read, row)) for row in islice(rows, batch_size)]

        reading = start()
        while reading:
            following, batch = start(), []
            for row, future in reading:
                try:
                    batch.append((row, future.result()))
                except ValueError as error:
                    unreadable[row.image_id] = str(error)
            yield batch
            reading = following


def _answers(pipe: ChestXrayFindingsPipeline, members: list[tuple[Row, Radiograph]], maps: bool) -> Iterator[tuple]:
    asked = [
        {"image": radiograph, "age": row.age, "sex": row.sex, "view_position": row.view_position}
        for row, radiograph in members
    ]
    answers = pipe(asked, batch_size=len(asked), maps=maps) if asked else []
    for (row, radiograph), answer in zip(members, answers, strict=True):
        yield row, radiograph, answer


def _cases(pipe: ChestXrayFindingsPipeline, row: Row, radiograph: Radiograph, answer: list[dict]) -> Iterator[Case]:
    by_finding = {finding["label"]: finding for finding in answer}
    for name in sorted({box.finding for box in row.boxes} & by_finding.keys()):
        yield measure_map(
            place_on_grid(pipe, by_finding[name]["map"]),
            [box for box in row.boxes if box.finding == name],
            image_id=row.image_id,
            patient_id=row.patient_id,
            finding=name,
            score=by_finding[name]["score"],
        )


def place_on_grid(pipe: ChestXrayFindingsPipeline, finding_map: NDArray) -> NDArray:
    """A finding map as the pipeline gives it -> [GRID,GRID] over the whole radiograph."""
    return pipe.image_processor.place_map(finding_map, GRID, GRID)


def _choose_examples(metadata: pd.DataFrame, seed: int) -> set[str]:
    """Mostly images with findings: a random draw would show healthy chests."""
    ill = metadata["findings"].map(bool)
    few = EXAMPLES // 4
    parts = [(metadata[ill], EXAMPLES - few), (metadata[~ill], few)]
    return {name for rows, count in parts for name in rows["image_id"].sample(min(count, len(rows)), random_state=seed)}
