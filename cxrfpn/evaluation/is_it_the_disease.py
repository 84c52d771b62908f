"""Is it the disease? python -m cxrfpn.evaluation.is_it_the_disease --source parquet:FOLDER

Writes results/is_it_the_disease.json and the tables of docs/is-it-the-disease.md. `--films` and `--cases` say on how
many; `--drains FILE` adds pneumothorax with and without a chest drain.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import pandas as pd

from cxrfpn.data.schema import Source
from cxrfpn.data.sources import open_source
from cxrfpn.evaluation.figures import Estimate, Figures
from cxrfpn.evaluation.fitting import portable
from cxrfpn.evaluation.input_checks import DrainFigures, InputChecks, check_drains, check_inputs
from cxrfpn.evaluation.map_checks import MapChecks, check_maps
from cxrfpn.evaluation.markdown import fill, number, percent, table
from cxrfpn.files import write_text
from engine_cxrfpn import load_engine
from torch_engine_cxrfpn import TorchEngine

ROOT = Path(__file__).resolve().parents[2]
FIGURES, PAGE = ROOT / "results" / "is_it_the_disease.json", ROOT / "docs" / "is-it-the-disease.md"
METRICS, PREDICTIONS = ROOT / "results" / "metrics.json", ROOT / "results" / "predictions.parquet"
FILMS, CASES = 300, 200
# How the columns on changed films are written.
MOVED = {"moved": ".2f", "flipped": ".3f", "difference": "+.3f"}


class Checks(TypedDict):
    """results/is_it_the_disease.json; `drains` is None where no labels of drains were given."""

    source: str
    weights_digest: str | None
    maps: MapChecks
    inputs: InputChecks
    drains: dict[str, DrainFigures] | None


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Check maps and scores against what is no disease.")
    parser.add_argument("--source", required=True, help="labelled radiographs, some with boxes: parquet:FOLDER")
    parser.add_argument("--model", default=str(ROOT), help="a folder (this repository's model)")
    parser.add_argument("--films", type=int, default=FILMS, help=f"test films that are changed ({FILMS})")
    parser.add_argument("--cases", type=int, default=CASES, help=f"test films with boxes for maps ({CASES})")
    parser.add_argument("--drains", type=Path, help="a CSV image_id,drain of films with pneumothorax")
    parser.add_argument("--predictions", type=Path, default=PREDICTIONS, help="of score.py, for --drains")
    arguments = parser.parse_args()
    try:
        figures = check(arguments)
    except (ValueError, OSError) as error:
        print(f"is_it_the_disease: {error}", file=sys.stderr)
        return 2
    write_text(FIGURES, json.dumps(figures, indent=1) + "\n")
    write_text(PAGE, fill(PAGE.read_text(), tables(figures, json.loads(METRICS.read_text()))))
    print(f"written: {FIGURES}, {PAGE}")
    return 0


def check(arguments: argparse.Namespace) -> Checks:
    """Run every check that the arguments ask for, on films of the split test."""
    source = open_source(arguments.source)
    engine = load_engine(arguments.model, "torch")
    metadata = source.metadata()
    test = metadata[metadata["split"] == "test"]
    figures: Checks = {
        "source": portable(source.name),
        "weights_digest": engine.weights_digest(),
        "maps": check_maps(cast(TorchEngine, engine), source, _draw(_with_boxes(source, test), arguments.cases)),
        "inputs": check_inputs(engine, source, metadata, _draw(test["image_id"], arguments.films)),
        "drains": None,
    }
    if arguments.drains is not None:
        scores = pd.read_parquet(arguments.predictions).set_index("image_id")
        figures["drains"] = check_drains(scores, metadata, arguments.drains)
    return figures


def tables(figures: Checks, metrics: Figures) -> dict[str, str]:
    """Return the table of each marker of the page.

    Args:
        figures: as `check` gives them.
        metrics: metrics.json of the same model, for sharp and blurred sources.
    """
    maps, inputs = figures["maps"], figures["inputs"]
    pointing = [(name, Estimate.of(row, "pointing_accuracy").text()) for name, row in maps["pointing"].items()]
    deletion = [
        (percent(row["covered"]), *(Estimate.of(row, key).text("+.3f") for key in ("shown", "elsewhere", "difference")))
        for row in maps["deletion"]
    ]
    changes = [
        (name, *(Estimate.of(row, key).text(form) for key, form in MOVED.items()))
        for name, row in inputs["changes"].items()
    ]
    sources = metrics["subgroups"]["source"]["groups"] if "source" in metrics["subgroups"] else {}
    sharp = [
        (name, f"{row['images']:,}", f"{row['patients']:,}", Estimate.of(row, "auroc").text())
        for name, row in sources.items()
    ]
    counts = (
        f"{maps['films']:,} test films with boxes, and {inputs['films']:,} test films of {inputs['patients']:,} "
        f"patients whose mean AUROC is {number(inputs['auroc'])}, of `{figures['source']}`."
    )
    drains = "Not measured: no labels of drains were given."
    if figures["drains"]:
        rows = [
            (name, str(row["films"]), str(row["patients"]), Estimate.of(row, "auroc").text())
            for name, row in figures["drains"].items()
        ]
        drains = table(("pneumothorax", "films", "patients", "AUROC"), rows)
    return {
        "counts": counts,
        "pointing": table(("maps of", "pointing accuracy"), pointing),
        "deletion": table(("covered", "where the map shows", "elsewhere", "difference"), deletion),
        "changes": table(("change", "scores moved", "calls flipped", "difference in mean AUROC"), changes),
        "sources": table(("films", "images", "patients", "mean AUROC"), sharp),
        "drains": drains,
    }


def _with_boxes(source: Source, test: pd.DataFrame) -> pd.Series:
    """Return the ids of films with boxes, which only the rows themselves name."""
    wanted = set(test["image_id"])
    return pd.Series(
        [row.image_id for part in source.parts() for row in source.rows(part, wanted) if row.boxes], dtype=object
    )


def _draw(ids: pd.Series, count: int) -> list[str]:
    chosen = np.random.default_rng(0).permutation(sorted(ids))[:count]
    if not len(chosen):
        raise ValueError("the source has no such films in its test split; maps need films with boxes")
    return chosen.tolist()


if __name__ == "__main__":
    sys.exit(main())
