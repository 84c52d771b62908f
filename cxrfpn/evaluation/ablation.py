"""What each part of the model is worth: runs that differ in one thing, on one budget, and a table of them.

`python -m cxrfpn.evaluation.ablation` trains the rows that runs/ablation lacks, then measures all of them on the same
test radiographs and writes results/ablation.json.
"""

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from cxrfpn.data.cohort import OfficialProtocol
from cxrfpn.data.schema import Source
from cxrfpn.data.sources import open_source
from cxrfpn.evaluation.intervals import interval, mean_over_findings
from cxrfpn.evaluation.predictions import Scored, match, read_predictions
from cxrfpn.evaluation.reporting import PREDICTIONS
from cxrfpn.evaluation.scoring import Settings, compare, select_split
from cxrfpn.evaluation.subgroups import SHARP_SIDE
from cxrfpn.files import write_text

ROOT = Path(__file__).resolve().parents[2]
RECIPE, RUNS, TABLE = "recipes/ablation.yaml", Path("runs/ablation"), ROOT / "results" / "ablation.json"
SOURCE = "parquet:../shared/nih-mini"


@dataclass(frozen=True)
class Row:
    """A run: what it is called in the table, and what it changes in the recipe.

    `folder` is where it lies when it is no row of RECIPE's but was trained by recipes of its own; `against` is the row
    that it is compared with, when that is not the reference.
    """

    says: str
    overrides: tuple[str, ...] = ()
    folder: str | None = None
    against: str | None = None


REFERENCE = "patient"
ROWS: dict[str, Row] = {
    "plain": Row(
        "a plain DenseNet-121: no pyramid, no patient",
        ("--network.pyramid_channels", "0", "--network.patient_features", "0"),
    ),
    "pyramid": Row("+ pyramid", ("--network.patient_features", "0")),
    REFERENCE: Row("+ patient (the row that the others are compared with)"),
    "lungs": Row(
        "+ the lungs-only radiographs, half of all that are shown",
        ("--more-sources", "[parquet:../shared/nih-lungs]", "--cycles", "[{epochs: 8, image_size: 64}]"),
    ),
    "pretrained": Row("begun with what pretraining.yaml learnt", ("--backbone-weights", "runs/pretraining")),
    "first": Row("the first model", folder="runs/longer"),
    "released": Row("the released model (release.yaml)", folder="runs/release", against="first"),
}


def train_missing() -> None:
    """Train, one after the other, the rows of RECIPE that have no predictions yet; a stopped one goes on."""
    for name, row in ROWS.items():
        folder = RUNS / name
        if row.folder is None and not (folder / PREDICTIONS).exists():
            resume = ["--resume"] if folder.exists() else []
            command = [sys.executable, "train.py", RECIPE, "--output-dir", str(folder), *row.overrides, *resume]
            print(" ".join(command))
            subprocess.run(command, cwd=ROOT, check=True)


def measure_rows(source: Source, folders: Mapping[str, Path], settings: Settings) -> dict[str, Any]:
    """Every row's mean AUROC on the sharp images of the test split, and how far it is from the row it is compared with.

    Args:
        source: what the rows were scored on, in its own sizes (a prepared copy no longer tells sharp from blurred).
        folders: name -> run folder, the reference's among them.
        settings: of the intervals.

    Returns:
        {"images", "patients", "reference", "rows": {name: {"mean_auroc", "mean_auroc_ci", and but for the reference
        "against", "difference", "difference_ci" (paired by patient)}}}.
    """
    everything = source.metadata()
    test = select_split(everything, "test", OfficialProtocol())
    sharp = _sharp_images(source, set(test["image_id"]))
    scored = {
        name: match(read_predictions(folder / PREDICTIONS), test[test["image_id"].isin(sharp)], everything, name)
        for name, folder in folders.items()
    }
    reference = scored[REFERENCE]
    rows = {}
    for name, each in scored.items():
        rows[name] = _mean_auroc(each, settings)
        if name != REFERENCE:
            against = ROWS[name].against or REFERENCE
            paired = compare(each, scored[against], settings)["mean_auroc"]
            told = {key: paired[key] for key in ("difference", "difference_ci")}
            rows[name] |= {"against": against, **told}
    patients = int(reference.metadata["patient_id"].nunique())
    return {"images": len(reference.metadata), "patients": patients, "reference": REFERENCE, "rows": rows}


def table(measured: Mapping[str, Any]) -> str:
    """The rows as a table in markdown."""
    lines = ["| run | mean AUROC, sharp test radiographs | less the row in bold, or another |", "|---|---|---|"]
    for name, row in measured["rows"].items():
        low, high = row["mean_auroc_ci"]
        figure, says, difference = f"{row['mean_auroc']:.3f} ({low:.3f} to {high:.3f})", ROWS[name].says, ""
        if name == measured["reference"]:
            says = f"**{says}**"
        else:
            low, high = row["difference_ci"]
            difference = f"{row['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
            if row["against"] != measured["reference"]:
                difference = f"less {ROWS[row['against']].says}: {difference}"
        lines.append(f"| {says} | {figure} | {difference} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-training", action="store_true", help="measure the rows that are there, and no more")
    if not parser.parse_args().no_training:
        train_missing()
    folders = {name: ROOT / (row.folder or RUNS / name) for name, row in ROWS.items()}
    present = {name: folder for name, folder in folders.items() if (folder / PREDICTIONS).exists()}
    measured = measure_rows(open_source(SOURCE), present, Settings())
    write_text(TABLE, json.dumps(measured, indent=2) + "\n")
    print(table(measured), f"written: {TABLE}", sep="\n")


def _sharp_images(source: Source, wanted: set[str]) -> set[str]:
    rows = (row for part in source.parts() for row in source.rows(part, wanted))
    return {row.image_id for row in rows if min(Image.open(io.BytesIO(row.image)).size) >= SHARP_SIDE}


def _mean_auroc(scored: Scored, settings: Settings) -> dict[str, Any]:
    bootstrap = settings.bootstrap(scored.metadata)
    areas = [mean_over_findings(each.auroc(scored.labels, scored.scores)) for each in (bootstrap.once(), bootstrap)]
    return {"mean_auroc": float(areas[0][0]), "mean_auroc_ci": interval(areas[1])}


if __name__ == "__main__":
    main()
