"""Measure what each part of the model is worth, and what each step to the release gained.

`python -m tools.ablation` trains the rows of recipes/ablation.yaml that have no scores yet, scores the test radiographs
by all rows, and writes results/ablation.json. The scores stay in results/ablation/, so that a later row can be paired
with earlier ones.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import pandas as pd
from PIL import Image

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.cohort import OfficialProtocol
from cxrfpn.data.schema import Source
from cxrfpn.data.sharpness import SHARP_SIDE, SIDE_COLUMN
from cxrfpn.data.sources import open_source
from cxrfpn.evaluation.baselines import patient_scores, pixel_scores
from cxrfpn.evaluation.figures import Bounds, Estimate
from cxrfpn.evaluation.intervals import interval, mean_over_findings
from cxrfpn.evaluation.predictions import Scored, match, read_predictions
from cxrfpn.evaluation.reporting import PREDICTIONS
from cxrfpn.evaluation.running import run_model
from cxrfpn.evaluation.scoring import Settings, compare, select_split
from cxrfpn.files import write_atomically, write_text
from engine_cxrfpn import load_engine
from package_cxrfpn import WEIGHTS
from radiograph_cxrfpn import read_radiograph

ROOT = Path(__file__).resolve().parents[1]
RECIPE, RUNS, FIGURES = "recipes/ablation.yaml", Path("runs/ablation"), ROOT / "results" / "ablation.json"
SOURCE = "parquet:../shared/nih-mini"
# Small pictures for the baseline of pixels: shrunk by their means, so that sharp and blurred ones look alike.
SMALL_SIDE, BOX = 48, Image.Resampling.BOX


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        text: its name in the table.
        overrides: what it changes in the recipe.
        folder: of a package that is not trained here but scored as it is. The packages of the earlier teachers are
            gone; their scores are kept.
        mean_of: the rows whose scores it averages.
        is_baseline: whether it has no network.
    """

    text: str
    overrides: tuple[str, ...] = ()
    folder: str | None = None
    mean_of: tuple[str, ...] = ()
    is_baseline: bool = False


NO_PATIENT = ("--network.patient_features", "0")
# Short runs that differ in one thing each.
PARTS: dict[str, Row] = {
    "patient-only": Row("age, view position and sex alone (gradient boosting)", is_baseline=True),
    "pixels": Row("these and 150 principal components of 48 x 48 pixels (logistic regression)", is_baseline=True),
    "plain": Row("a plain DenseNet-121: no pyramid, no patient", ("--network.pyramid_channels", "0", *NO_PATIENT)),
    "pyramid": Row("+ pyramid, rectified", NO_PATIENT),
    "patient": Row("with pyramid, rectified, and patient"),
    "report": Row("the same, its pyramid not rectified, as in the report", ("--network.rectified", "false")),
    "sharp": Row("the row in bold, strong places counting for more", ("--network.pooling_sharpness", "2.0")),
}
# The release, and what it was made from.
RELEASE: dict[str, Row] = {
    "version-0.1.0": Row("version 0.1.0, without ImageNet", folder="runs/v0.1.0"),
    "earlier-teacher-1": Row("EfficientNet-Lite0 from ImageNet weights, 3 epochs of blurred and compressed images"),
    "earlier-teacher-2": Row("the same with lungs-only images and another seed"),
    "earlier-teachers": Row("the mean of both scores", mean_of=("earlier-teacher-1", "earlier-teacher-2")),
    "earlier-student": Row("the earlier student, which they taught", folder="runs/earlier-student"),
    "teacher-1": Row("EfficientNet-Lite0, 4 epochs, images not compressed or blurred", folder="runs/teacher-1"),
    "teacher-2": Row("the same, 5 epochs of other sources and another seed", folder="runs/teacher-2"),
    "teachers": Row("the mean of both scores", mean_of=("teacher-1", "teacher-2")),
    "released": Row("the released model, which they taught", folder="."),
}
# Of each table: its rows, and the one that the others are compared with.
TABLES: dict[str, tuple[dict[str, Row], str]] = {"parts": (PARTS, "patient"), "release": (RELEASE, "earlier-student")}
ROWS = PARTS | RELEASE


def scores_of(name: str) -> Path:
    """Return the file of a row's scores of the test radiographs."""
    return FIGURES.with_suffix("") / f"{name}.parquet"


def train_missing() -> None:
    """Train, one after the other, the rows of RECIPE that have no scores yet; resume one that was stopped."""
    for name, row in PARTS.items():
        folder = RUNS / name
        if not row.is_baseline and not scores_of(name).exists():
            resume = ["--resume"] if (ROOT / folder).exists() else []
            command = [sys.executable, "train.py", RECIPE, "--output-dir", str(folder), *row.overrides, *resume]
            print(" ".join(command))
            subprocess.run(command, cwd=ROOT, check=True)


def score_missing(source: Source) -> None:
    """Score the sharp test radiographs by the released model, and by every trained row that has no scores yet."""
    test = select_split(source.metadata(), "test", OfficialProtocol())
    for name, row in ROWS.items():
        folder, file = ROOT / (row.folder or RUNS / name), scores_of(name)
        is_trained = (folder / (PREDICTIONS if row.folder is None else WEIGHTS)).exists()
        if is_trained and (row.folder == "." or not file.exists()):
            scores = run_model(load_engine(str(folder), "torch"), source, test, maps=False).scores.astype(np.float32)
            _write_scores(name, scores[scores[SIDE_COLUMN] >= SHARP_SIDE].reset_index())
        if row.mean_of and all(scores_of(each).exists() for each in row.mean_of):
            _write_scores(name, _mean_scores([scores_of(each) for each in row.mean_of]))


def _mean_scores(files: list[Path]) -> pd.DataFrame:
    first, *others = (pd.read_parquet(file).set_index("image_id") for file in files)
    findings = list(FINDINGS)
    first[findings] = sum((each.loc[first.index, findings] for each in others), first[findings]) / len(files)
    return first.reset_index()


def _write_scores(name: str, scores: pd.DataFrame) -> None:
    scores_of(name).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(scores_of(name), scores.to_parquet(index=False, compression="zstd"))


def score_baselines(source: Source) -> None:
    """Score the sharp test radiographs, as the reference row names them, by the rows that need no network."""
    metadata, sharp = source.metadata(), pd.read_parquet(scores_of("patient"))[["image_id", SIDE_COLUMN]]
    train = select_split(metadata, "train", OfficialProtocol())
    test = metadata.set_index("image_id", drop=False).loc[sharp["image_id"]].reset_index(drop=True)
    for name in (name for name, row in ROWS.items() if row.is_baseline and not scores_of(name).exists()):
        if name == "pixels":
            scores = pixel_scores(train, _small_pixels(source, train), test, _small_pixels(source, test))
        else:
            scores = patient_scores(train, test)
        table = pd.concat([sharp, pd.DataFrame(scores.astype(np.float32), columns=list(FINDINGS))], axis=1)
        _write_scores(name, table)


def _small_pixels(source: Source, metadata: pd.DataFrame) -> np.ndarray:
    """[N, SMALL_SIDE^2] grey levels of the images of `metadata`, in its order."""
    wanted = set(metadata["image_id"])
    small = {
        row.image_id: Image.fromarray(read_radiograph(row.content(), row.image_id).pixels).resize(
            (SMALL_SIDE, SMALL_SIDE), BOX
        )
        for part in source.parts()
        for row in source.rows(part, wanted)
    }
    return np.stack([np.asarray(small[name], np.float32).ravel() for name in metadata["image_id"]])


class MeasuredRow(TypedDict):
    """Mean AUROC of a row, and for all but the reference how far it is from that."""

    mean_auroc: float
    mean_auroc_ci: Bounds | None
    difference: NotRequired[float | None]
    difference_ci: NotRequired[Bounds | None]


class MeasuredRows(TypedDict):
    """Rows of a table, measured on the same images."""

    images: int
    patients: int
    reference: str
    rows: dict[str, MeasuredRow]


def measure_rows(source: Source, files: Mapping[str, Path], reference: str, settings: Settings) -> MeasuredRows:
    """Measure every row's mean AUROC on the sharp images of the test split, and its difference from the reference.

    Args:
        source: of the labels.
        files: name -> scores with `source_side`.
        reference: the name that the others are compared with.
        settings: of the intervals.

    Returns:
        {"images", "patients", "reference", "rows": {name: {"mean_auroc", "mean_auroc_ci", and for all but the reference
        "difference", "difference_ci" (paired by patient)}}}.
    """
    everything = source.metadata()
    test = select_split(everything, "test", OfficialProtocol())
    scored = {name: _sharp(match(read_predictions(file), test, everything, name)) for name, file in files.items()}
    rows: dict[str, MeasuredRow] = {}
    for name, each in scored.items():
        rows[name] = _mean_auroc(each, settings)
        if name != reference:
            paired = compare(each, scored[reference], settings)["mean_auroc"]
            rows[name]["difference"], rows[name]["difference_ci"] = paired["difference"], paired["difference_ci"]
    metadata = scored[reference].metadata
    patients = int(metadata["patient_id"].nunique())
    return {"images": len(metadata), "patients": patients, "reference": reference, "rows": rows}


def table(measured: MeasuredRows) -> str:
    """Return the rows as a table in markdown."""
    lines = ["| run | mean AUROC, sharp test radiographs | difference from the row in bold |", "|---|---|---|"]
    for name, row in measured["rows"].items():
        text, difference = ROWS[name].text, ""
        if name == measured["reference"]:
            text = f"**{text}**"
        else:
            difference = Estimate.of(row, "difference").text("+.3f")
        lines.append(f"| {text} | {Estimate.of(row, 'mean_auroc').text()} | {difference} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-training", action="store_true", help="measure the rows that are there, and no more")
    if not parser.parse_args().no_training:
        train_missing()
    source = open_source(SOURCE)
    score_missing(source)
    score_baselines(source)
    measured = {}
    for title, (rows, reference) in TABLES.items():
        files = {name: scores_of(name) for name in rows if scores_of(name).exists()}
        measured[title] = measure_rows(source, files, reference, Settings())
        print(table(measured[title]))
    write_text(FIGURES, json.dumps(measured, indent=2) + "\n")
    print(f"written: {FIGURES}")


def _sharp(scored: Scored) -> Scored:
    return scored.of((scored.metadata[SIDE_COLUMN] >= SHARP_SIDE).to_numpy())


def _mean_auroc(scored: Scored, settings: Settings) -> MeasuredRow:
    bootstrap = settings.bootstrap(scored.metadata)
    areas = [mean_over_findings(each.auroc(scored.labels, scored.scores)) for each in (bootstrap.once(), bootstrap)]
    return {"mean_auroc": float(areas[0][0]), "mean_auroc_ci": interval(areas[1])}


if __name__ == "__main__":
    main()
