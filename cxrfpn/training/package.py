"""A run folder that is a model package: weights, modules, thresholds, what was measured."""

import csv
import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.split import Split
from cxrfpn.evaluation import thresholds
from cxrfpn.training.recipe import Recipe
from image_processing_cxrfpn import CxrFpnImageProcessor
from modeling_cxrfpn import CxrFpnForImageClassification

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Progress:
    """What was measured, an entry an epoch."""

    epochs: list[dict[str, float]] = field(default_factory=list)

    def add(self, epoch: int, image_size: int, loss: float, auroc: float) -> None:
        self.epochs.append(
            {"epoch": epoch + 1, "image_size": image_size, "train_loss": loss, "validation_auroc": auroc}
        )

    def last_is_best(self) -> bool:
        return self.epochs[-1]["validation_auroc"] >= max(entry["validation_auroc"] for entry in self.epochs)

    def last_line(self) -> str:
        last = self.epochs[-1]
        return (
            f"epoch {last['epoch']}: {last['image_size']} px, loss {last['train_loss']:.4f}, "
            f"validation mean AUROC {last['validation_auroc']:.4f}"
        )


def save_package(
    model: CxrFpnForImageClassification,
    folder: Path,
    recipe: Recipe,
    validation: Split,
    scores: np.ndarray,
    progress: Progress,
) -> None:
    """Write all that `from_pretrained` and the pipeline need into `folder`, weights in half precision.

    Half precision halves the download and moves no score by more than 0.001; `config.json` says float32, so the
    weights are brought back to it on loading.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = progress.epochs[-1]["image_size"]  # the size these weights were measured at
    model.config.image_size = size
    model.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    CxrFpnImageProcessor(size={"height": size, "width": size}).save_pretrained(folder)
    if (ROOT / "pipeline_cxrfpn.py").exists():
        shutil.copy(ROOT / "pipeline_cxrfpn.py", folder)
    fitted = fit_operating_points(folder / "model.safetensors", recipe, validation, scores)
    (folder / "thresholds.json").write_text(json.dumps(fitted, indent=2) + "\n")
    with (folder / "validation_metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, progress.epochs[0])
        writer.writeheader()
        writer.writerows(progress.epochs)


def fit_operating_points(weights: Path, recipe: Recipe, validation: Split, scores: np.ndarray) -> dict:
    """thresholds.json: every operating point, and what it was fitted on."""
    labels = validation.labels.numpy()
    settings = {"min_precision": recipe.minimum_precision}
    return {
        "default": "dynamic_adjustment",
        "fitted_on": {
            "dataset": recipe.source,
            "split": "validation",
            "images": len(validation),
            "positives": {name: int(labels[:, index].sum()) for index, name in enumerate(FINDINGS)},
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
        "operating_points": {
            "youden": thresholds.find_optimal_thresholds_by_roc(labels, scores),
            "precision_constraint": thresholds.find_optimal_thresholds_with_precision_constraint(
                labels, scores, **settings
            ),
            "dynamic_adjustment": thresholds.find_optimal_thresholds_with_dynamic_adjustment(
                labels, scores, **settings
            ),
            "sensitivity_90": thresholds.find_thresholds_at_sensitivity(labels, scores),
        },
    }
