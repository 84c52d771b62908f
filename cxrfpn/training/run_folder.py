"""Write a run folder: the model package, its figures, and a record of how it was made."""

import copy
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from cxrfpn.data.sources import open_source
from cxrfpn.evaluation.fitting import fit_thresholds
from cxrfpn.evaluation.reporting import ScoreRequest, save_report, score_model
from cxrfpn.files import clear_unfinished, write_text
from cxrfpn.training.curves import save_curves
from cxrfpn.training.recipe import STREAMED, Recipe
from cxrfpn.training.run import Run
from engine_cxrfpn import load_engine
from image_processing_cxrfpn import CxrFpnImageProcessor
from modeling_cxrfpn import CxrFpnForImageClassification
from package_cxrfpn import WEIGHTS, weights_digest

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION, RECIPE, EPOCHS = "configuration.txt", "recipe.yaml", "validation_metrics.csv"
_BESIDE = ".package-"
# Libraries whose versions configuration.txt names: all that may change a result.
LIBRARIES = ("torch", "torchvision", "transformers", "accelerate", "numpy", "opencv-python-headless", "pyarrow")


def save_package(
    network: CxrFpnForImageClassification,
    folder: Path,
    recipe: Recipe,
    size: int,
    prepared_size: int,
    labels: NDArray[np.float32],
    scores: NDArray[np.float32],
    rows: pd.DataFrame,
) -> None:
    """Write all that `from_pretrained` and the pipeline need into `folder`, which may hold an older package.

    Args:
        size: the side in pixels at which the network is used.
        prepared_size: the side in pixels of the prepared images that it was trained on.
        labels, scores: [N,F] of the validation images, to which the thresholds are fitted.
        rows: metadata of these images. Those on the source's own test list, which the protocols report and patients do
            not keep apart, are left out of the fit.
    """
    fitted_on = (rows["split"] != "test").to_numpy()
    with _beside(folder) as beside:
        _write_network(network, beside, size, prepared_size)
        fitted = fit_thresholds(
            labels[fitted_on],
            scores[fitted_on],
            rows[fitted_on],
            dataset=recipe.source,
            split="validation",
            weights_digest=weights_digest(load_file(beside / WEIGHTS)),
            min_precision=recipe.minimum_precision,
            pixels={"size": size, "prepared_size": prepared_size},
            findings=network.findings,
        )
        (beside / "thresholds.json").write_text(json.dumps(fitted, indent=2) + "\n")


def clear_leftovers(folder: Path) -> None:
    """Remove unfinished files of a run that was killed; they are written again."""
    for left in folder.glob(f"{_BESIDE}*"):
        shutil.rmtree(left)
    clear_unfinished(folder)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yield a folder whose files are moved into `folder` one by one at the end.

    The weights come last but one: the thresholds, which name their digest, come last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_BESIDE, dir=folder) as name:
        try:
            yield Path(name)
        except SafetensorError as error:  # of a full disk, as a rule
            raise OSError(f"{folder / WEIGHTS}: cannot be written ({error})") from None
        last = [WEIGHTS, "thresholds.json"]
        for file in sorted(Path(name).iterdir(), key=lambda path: last.index(path.name) if path.name in last else -1):
            os.replace(file, folder / file.name)


def as_saved(network: CxrFpnForImageClassification) -> CxrFpnForImageClassification:
    """Return the network as its package will load: a copy in float32 of its weights in half precision."""
    return copy.deepcopy(network).half().float()


def _write_network(network: CxrFpnForImageClassification, folder: Path, size: int, prepared_size: int) -> None:
    """Write the weights in half precision, which halves the download; `config.json` makes them load as float32."""
    kept = copy.deepcopy(network)
    kept.config.image_size = size
    kept.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")
    processor = CxrFpnImageProcessor(size={"height": size, "width": size}, prepared_size=prepared_size)
    processor.save_pretrained(folder)


def write_epochs(run: Run) -> None:
    """Write validation_metrics.csv, one row an epoch."""
    write_text(run.folder / EPOCHS, pd.DataFrame(run.state.epochs).to_csv(index=False))


def write_configuration(run: Run) -> None:
    """Write configuration.txt: recipe, data, versions, commit, hardware, and the time spent so far."""
    if not run.accelerator.is_main_process:
        return
    plan, shards, minutes = run.feed.plan, run.feed.shards, run.seconds / 60
    images = (plan["copies"] + plan["mirrored"]).groupby(plan["split"]).sum()
    lines = [
        f"command      {' '.join(sys.argv)}",
        f"commit       {_commit()}",
        f"source       {run.recipe.source}",
        f"prepared     {shards.folder}, {len(shards):,} images of {shards.size} px, {len(shards.skipped)} skipped",
        f"cohort       {', '.join(f'{split} {count:,}' for split, count in images.items())} images an epoch",
        f"fingerprint  {fingerprint(plan)} (of the cohort: image ids, splits, copies)",
        f"seed         {run.recipe.seed}",
        f"hardware     {_hardware(run)}",
        f"precision    {run.accelerator.mixed_precision}",
        f"versions     python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        f"took         {minutes:.1f} minutes, {len(run.state.losses):,} steps",
        "",
        run.recipe.as_yaml(),
    ]
    run.folder.mkdir(parents=True, exist_ok=True)
    write_text(run.folder / CONFIGURATION, "\n".join(lines))
    write_text(run.folder / RECIPE, with_earlier_recipe(run.recipe))


def with_earlier_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML, with the recipe of the run that its weights come from as comments below."""
    earlier = Path(recipe.backbone_weights) / RECIPE
    if not earlier.is_file():
        return recipe.as_yaml()
    lines = earlier.read_text(encoding="utf-8").splitlines()
    return "\n".join(
        [f"{recipe.as_yaml()}# {recipe.backbone_weights} was made by", *(f"# {line}" for line in lines), ""]
    )


def finish(run: Run) -> None:
    """Score the test split, draw the curves, close the trackers."""
    if run.accelerator.is_main_process:
        write_configuration(run)
        score_test_split(run)
        save_curves(run.folder / "plots", run.state, run.recipe)
    run.accelerator.end_training()


def score_test_split(run: Run) -> None:
    """Score the saved package on the test split of the run's own source, and write the report."""
    if (run.feed.plan["split"] == "test").any():
        findings = run.recipe.findings
        if run.recipe.prepared == STREAMED:
            source = open_source(run.recipe.source, columns=run.recipe.columns, findings=findings)
        else:
            source = open_source(f"parquet:{run.feed.shards.folder}", findings=findings)
        source.name = run.feed.shards.source  # figures are known by what was prepared, not by the folder it lies in
        report = score_model(load_engine(str(run.folder), "torch"), ScoreRequest(source, "test", run.recipe.protocol()))
        save_report(report, run.folder)
        print(report.summary())


def fingerprint(plan: pd.DataFrame) -> str:
    """Return a sha256 of a plan, in any order of its rows: two runs of the same plan saw the same images."""
    rows = plan[["image_id", "split", "copies", "mirrored"]].sort_values("image_id").to_csv(index=False)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def _commit() -> str:
    # Killed while it refreshes the index, git would leave a lock that stops every git command after it.
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _hardware(run: Run) -> str:
    device = run.accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return f"{run.accelerator.num_processes} x {name} ({platform.machine()})"
