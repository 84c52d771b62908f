"""How far scores move when a film changes in ways that are no disease, and figures of groups that may explain them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from cxrfpn.data.labels import label_matrix
from cxrfpn.data.manipulated import Manipulation, expose, frame, mark
from cxrfpn.data.schema import Source
from cxrfpn.evaluation.figures import Bounds
from cxrfpn.evaluation.intervals import Bootstrap, interval, mean_over_findings
from engine_cxrfpn import Engine


def shrink(pixels: NDArray[np.uint8], side: int = 128) -> NDArray[np.uint8]:
    """Bring the shorter side to `side` pixels and back, as films that exist in that size only are."""
    height, width = pixels.shape
    scale = side / min(height, width)
    if scale >= 1:
        return pixels
    small = Image.fromarray(pixels).resize((round(width * scale), round(height * scale)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


CHANGES: dict[str, Manipulation] = {
    "text marker": mark,
    "black border, up to 8 % a side": frame,
    "exposure, gamma 0.7 to 1.4": expose,
    "mirrored": lambda pixels, random: pixels[:, ::-1],
    "brought to 128 pixels": lambda pixels, random: shrink(pixels),
}


class ChangeFigures(TypedDict):
    """What one change does: how far logits move, the share of calls that flip, and mean AUROC with its difference."""

    moved: float
    moved_ci: Bounds | None
    flipped: float
    flipped_ci: Bounds | None
    auroc: float
    difference: float
    difference_ci: Bounds | None


class InputChecks(TypedDict):
    """What `check_inputs` measures; `auroc` is that of the films as they are."""

    films: int
    patients: int
    auroc: float
    changes: dict[str, ChangeFigures]


class DrainFigures(TypedDict):
    """Pneumothorax in films with a chest drain, or without one."""

    films: int
    patients: int
    auroc: float | None
    auroc_ci: Bounds | None


def check_inputs(
    engine: Engine, source: Source, metadata: pd.DataFrame, films: Sequence[str], resamples: int = 1000
) -> InputChecks:
    """Compare the scores of films with those of the same films after each of CHANGES.

    Args:
        metadata: of the source.
        films: image ids.

    Returns:
        `films`, `patients`, `auroc` of the films as they are, and `changes`: {change: {moved (mean absolute change of a
        logit, as a share of the standard deviation of the finding's logits over films), flipped (share of calls at the
        default threshold that change), auroc, difference (of mean AUROC, changed minus not)}, with intervals}.
    """
    random, wanted = np.random.default_rng(0), set(films)
    logits: dict[str, list[NDArray]] = {name: [] for name in ("", *CHANGES)}
    ids = []
    rows = (row for part in source.parts() for row in source.rows(part, wanted))
    for row in tqdm(rows, total=len(wanted), desc="changed films", unit=" films", mininterval=5):
        pixels = engine.read(row.content(), row.image_id).pixels
        patient = {"age": row.age, "sex": row.sex, "view_position": row.view_position}
        versions = [pixels, *(np.ascontiguousarray(change(pixels, random)) for change in CHANGES.values())]
        answers = engine.answer([engine.prepare({"image": version, **patient}) for version in versions])
        for name, answer in zip(logits, answers, strict=True):
            scores = {finding["label"]: finding["score"] for finding in answer}
            row_scores = np.array([scores[label] for label in engine.findings]).clip(1e-7, 1 - 1e-7)
            logits[name].append(np.log(row_scores / (1 - row_scores)))
        ids.append(row.image_id)
    chosen = metadata.set_index("image_id").loc[ids].reset_index()
    values = {name: np.array(each) for name, each in logits.items()}
    labels = label_matrix(chosen, engine.findings).astype(float)
    bootstrap = Bootstrap.draw(chosen["patient_id"].to_numpy(str), resamples)
    points = engine.thresholds.at(None)
    limits = np.array([points[label] for label in engine.findings]).clip(1e-7, 1 - 1e-7)
    limits = np.log(limits / (1 - limits))
    before = _mean_auroc(bootstrap, labels, values[""])
    figures: InputChecks = {
        "films": len(chosen),
        "patients": int(chosen["patient_id"].nunique()),
        "auroc": before[0],
        "changes": {},
    }
    spread = values[""].std(axis=0) + 1e-9
    for name in CHANGES:
        after = _mean_auroc(bootstrap, labels, values[name])
        moved = (np.abs(values[name] - values[""]) / spread).mean(axis=1)
        flipped = ((values[name] >= limits) != (values[""] >= limits)).mean(axis=1)
        ones = np.ones(len(moved))
        figures["changes"][name] = {
            "moved": float(moved.mean()),
            "moved_ci": interval(bootstrap.ratio(moved, ones)),
            "flipped": float(flipped.mean()),
            "flipped_ci": interval(bootstrap.ratio(flipped, ones)),
            "auroc": after[0],
            "difference": after[0] - before[0],
            "difference_ci": interval(after[1] - before[1]),
        }
    return figures


def check_drains(
    scores: pd.DataFrame, metadata: pd.DataFrame, drains: Path, resamples: int = 1000
) -> dict[str, DrainFigures]:
    """Measure pneumothorax with and without a chest drain, each against the same films without pneumothorax.

    A model that has learnt the drain, which treats a pneumothorax, does much better on those that have one (Oakden-
    Rayner et al., 2020).

    Args:
        scores: indexed by image id, with a column Pneumothorax.
        metadata: of the source.
        drains: a CSV with the columns image_id and drain (0 or 1), of films with pneumothorax.

    Raises:
        ValueError: the file cannot be used.
    """
    try:
        table = pd.read_csv(drains, dtype={"image_id": str})
        with_drain = table.set_index("image_id")["drain"].astype(int)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{drains}: needs the columns image_id and drain, 0 or 1 ({error})") from None
    rows = metadata[metadata["image_id"].isin(scores.index)].reset_index(drop=True)
    ill = rows["findings"].map(lambda findings: "Pneumothorax" in findings).to_numpy()
    drain = rows["image_id"].map(with_drain).to_numpy(float)
    values = scores.loc[rows["image_id"], "Pneumothorax"].to_numpy()[:, None]
    bootstrap = Bootstrap.draw(rows["patient_id"].to_numpy(str), resamples)
    groups = {"with a drain": ill & (drain == 1), "without a drain": ill & (drain == 0)}
    figures: dict[str, DrainFigures] = {}
    for name, positives in groups.items():
        labels = np.where(positives, 1.0, np.where(ill, np.nan, 0.0))[:, None]
        patients = int(rows.loc[positives, "patient_id"].nunique())
        area = float(bootstrap.once().auroc(labels, values)[0, 0])
        figures[name] = {
            "films": int(positives.sum()),
            "patients": patients,
            "auroc": None if np.isnan(area) else area,
            "auroc_ci": interval(bootstrap.auroc(labels, values)[:, 0], patients),
        }
    return figures


def _mean_auroc(bootstrap: Bootstrap, labels: NDArray, values: NDArray) -> tuple[float, NDArray[np.float64]]:
    whole = mean_over_findings(bootstrap.once().auroc(labels, values))[0]
    return float(whole), mean_over_findings(bootstrap.auroc(labels, values))
