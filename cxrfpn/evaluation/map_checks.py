"""Do maps depend on what was learnt, and do scores depend on what maps show?

Maps of the trained network stand beside those of the same network with its weights shuffled (Adebayo et al., 2018), and
beside random maps. Deletion (Petsiuk et al., 2018): the places that a map shows are covered first, and the score must
fall faster than when as many places of the same form are covered elsewhere.
"""

import copy
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from tqdm import tqdm

from cxrfpn.data.schema import Row, Source
from cxrfpn.evaluation.figures import Bounds
from cxrfpn.evaluation.intervals import Bootstrap, interval
from cxrfpn.evaluation.localisation import GRID, Case, measure_map, summarise
from torch_engine_cxrfpn import TorchEngine

# Shares of the radiograph that deletion covers.
COVERED = (0.02, 0.05, 0.10, 0.20)
# Random maps and moved maps are drawn so often for each finding of a film.
RANDOM_MAPS, MOVED = 5, 2


class Pointing(TypedDict):
    """How often maps point into a box."""

    pointing_accuracy: float
    pointing_accuracy_ci: Bounds | None


class Deletion(TypedDict):
    """How far the logit falls when a share of the film is covered, where the map shows and elsewhere."""

    covered: float
    shown: float
    shown_ci: Bounds | None
    elsewhere: float
    elsewhere_ci: Bounds | None
    difference: float
    difference_ci: Bounds | None


class MapChecks(TypedDict):
    """What `check_maps` measures."""

    films: int
    pointing: dict[str, Pointing]
    deletion: list[Deletion]


def shuffled(engine: TorchEngine, *, head_only: bool, seed: int = 0) -> TorchEngine:
    """Return the engine with the values of each tensor of its network shuffled: their scale stays, what they say goes.

    Args:
        head_only: leave the backbone as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    pipe = copy.copy(engine.pipe)
    pipe.model = copy.deepcopy(engine.pipe.model)
    for name, tensor in pipe.model.state_dict().items():
        if tensor.is_floating_point() and not (head_only and name.startswith("backbone.")):
            values = tensor.flatten()
            tensor.copy_(values[torch.randperm(len(values), generator=generator)].view_as(tensor))
    return TorchEngine(pipe)


def check_maps(engine: TorchEngine, source: Source, films: Sequence[str], resamples: int = 1000) -> MapChecks:
    """Check maps on films with boxes.

    Returns:
        `films`; `pointing`, {"trained", "head shuffled", "all shuffled", "random"}, each with `pointing_accuracy` and
        its interval; and `deletion`, a row for each of COVERED: how far the logit falls when what the map shows is
        covered, when as much elsewhere is, and their difference, with intervals over patients.
    """
    random = np.random.default_rng(0)
    engines = {
        "trained": engine,
        "head shuffled": shuffled(engine, head_only=True),
        "all shuffled": shuffled(engine, head_only=False),
    }
    cases: dict[str, list[Case]] = {name: [] for name in (*engines, "random")}
    drops: list[NDArray[np.float64]] = []
    patients: list[str] = []
    wanted = set(films)
    rows = (row for part in source.parts() for row in source.rows(part, wanted))
    for row in tqdm(rows, total=len(wanted), desc="maps", unit=" films", mininterval=5):
        pixels = engine.read(row.content(), row.image_id).pixels
        names = sorted({box.finding for box in row.boxes} & set(engine.findings))
        maps = {name: _maps(each, row, pixels) for name, each in engines.items()}
        for finding in names:
            for name, found in maps.items():
                cases[name].append(_case(engine, row, finding, found[finding]))
            shape = maps["trained"][finding].shape
            for _ in range(RANDOM_MAPS):
                cases["random"].append(_case(engine, row, finding, random.random(shape)))
            drops.append(_deletion(engine, row, pixels, finding, maps["trained"][finding], random))
            patients.append(row.patient_id)
    pointing: dict[str, Pointing] = {}
    for name, measured in cases.items():
        bootstrap = Bootstrap.draw(np.array([case.patient_id for case in measured]), resamples)
        mean = summarise(measured, bootstrap)["mean"]
        pointing[name] = {
            "pointing_accuracy": mean["pointing_accuracy"],
            "pointing_accuracy_ci": mean["pointing_accuracy_ci"],
        }
    return {
        "films": len({case.image_id for case in cases["trained"]}),
        "pointing": pointing,
        "deletion": _summarise_deletion(np.array(drops), patients, resamples),
    }


def _maps(engine: TorchEngine, row: Row, pixels: NDArray[np.uint8]) -> dict[str, NDArray]:
    (answer,) = engine.answer([engine.prepare(_inputs(row, pixels))], maps=True)
    return {finding["label"]: finding["map"] for finding in answer}


def _case(engine: TorchEngine, row: Row, finding: str, finding_map: NDArray) -> Case:
    boxes = [box for box in row.boxes if box.finding == finding]
    placed = engine.place_map(finding_map, GRID, GRID)
    return measure_map(
        placed, boxes, image_id=row.image_id, patient_id=row.patient_id, finding=finding, score=1.0
    )  # the score ranks detections, which are not looked at


def _deletion(
    engine: TorchEngine,
    row: Row,
    pixels: NDArray[np.uint8],
    finding: str,
    finding_map: NDArray,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Return how far the logit falls, [COVERED, 2]: by what the map shows, and by the same form elsewhere."""
    placed = engine.place_map(finding_map, *pixels.shape)
    # Ties, of a map that is flat in places, are covered in random order.
    order = placed + 1e-6 * random.random(placed.shape)
    blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(max(pixels.shape) / 12))
    moved = [
        np.roll(order, [int(random.uniform(0.2, 0.8) * side) for side in order.shape], (0, 1)) for _ in range(MOVED)
    ]
    films = [
        pixels,
        *(_cover(pixels, np.asarray(blurred), each, share) for each in (order, *moved) for share in COVERED),
    ]
    logits = _logits(engine, row, films, finding)
    falls = (logits[0] - logits[1:]).reshape(1 + MOVED, len(COVERED))
    return np.stack([falls[0], falls[1:].mean(axis=0)], axis=1)


def _cover(pixels: NDArray, blurred: NDArray, order: NDArray, share: float) -> NDArray[np.uint8]:
    return np.where(order >= np.quantile(order, 1 - share), blurred, pixels).astype(np.uint8)


def _logits(engine: TorchEngine, row: Row, films: Sequence[NDArray], finding: str) -> NDArray[np.float64]:
    answers = engine.answer([engine.prepare(_inputs(row, film)) for film in films])
    scores = np.array([each["score"] for answer in answers for each in answer if each["label"] == finding])
    scores = scores.clip(1e-7, 1 - 1e-7)
    return np.log(scores / (1 - scores))


def _inputs(row: Row, pixels: NDArray[np.uint8]) -> dict[str, object]:
    return {"image": pixels, "age": row.age, "sex": row.sex, "view_position": row.view_position}


def _summarise_deletion(drops: NDArray[np.float64], patients: Sequence[str], resamples: int) -> list[Deletion]:
    bootstrap, count = Bootstrap.draw(np.array(patients), resamples), len(set(patients))
    return [_deletion_row(share, drops[:, index], bootstrap, count) for index, share in enumerate(COVERED)]


def _deletion_row(share: float, falls: NDArray, bootstrap: Bootstrap, patients: int) -> Deletion:
    shown, elsewhere, difference = (
        (float(values.mean()), interval(bootstrap.ratio(values, np.ones(len(values))), patients))
        for values in (falls[:, 0], falls[:, 1], falls[:, 0] - falls[:, 1])
    )
    return {
        "covered": share,
        "shown": shown[0],
        "shown_ci": shown[1],
        "elsewhere": elsewhere[0],
        "elsewhere_ci": elsewhere[1],
        "difference": difference[0],
        "difference_ci": difference[1],
    }
