"""Draw a run: the loss of every step, and the report's figures of every epoch."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cxrfpn.style import save_figure
from cxrfpn.training.checkpoint import TrainState
from cxrfpn.training.recipe import Recipe

# The epochs that the report prints: epoch -> train loss, validation loss, precision, recall, macro F1, AUC.
REPORTED = {
    1: (0.5895, 0.5504, 0.1171, 0.0770, 0.0785, 0.6495),
    5: (0.4894, 0.5083, 0.3376, 0.2039, 0.2330, 0.7493),
    9: (0.4533, 0.4820, 0.4006, 0.3428, 0.3416, 0.7779),
    12: (0.4095, 0.4399, 0.4316, 0.3556, 0.3571, 0.7794),
    13: (0.4030, 0.4457, 0.4095, 0.3708, 0.3649, 0.7687),
    15: (0.3972, 0.4485, 0.3570, 0.3513, 0.3577, 0.7485),
}
FIGURES = ("train_loss", "validation_loss", "precision", "recall", "macro_f1", "mean_auroc")
NAMES = ("Train loss", "Validation loss", "Precision", "Recall", "Macro F1", "Mean AUROC")
OURS, THEIRS = "#0b7a75", "#b0592f"


def save_curves(folder: Path, state: TrainState, recipe: Recipe) -> list[Path]:
    """Draw the curves of a run; the report's stand beside ours where its protocol was followed."""
    matplotlib.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "training_loss": draw_losses(state.losses),
        "training_epochs": draw_epochs(state, beside_report=recipe.cohort["protocol"] == "report"),
    }
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        save_figure(figure, path)
        paths.append(path)
    return paths


def draw_losses(losses: list[float]) -> Figure:
    """Draw the loss of every step, and its running mean over a fiftieth of the run."""
    figure = Figure((8, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", title="Training loss of every step")
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color=OURS, alpha=0.4, linewidth=0.8, label="step")
    if (width := len(losses) // 50) > 1:
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, color=OURS, linewidth=1.8, label=f"mean of {width} steps")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_epochs(state: TrainState, beside_report: bool) -> Figure:
    """Draw the report's six figures of every epoch (calls at a score of 0.5)."""
    figure = Figure((10, 6), layout="constrained")
    epochs = [entry["epoch"] for entry in state.epochs]
    for index, (key, name) in enumerate(zip(FIGURES, NAMES, strict=True)):
        axes = figure.add_subplot(2, 3, index + 1, title=name, xlabel="epoch")
        axes.plot(epochs, [entry[key] for entry in state.epochs], "o-", color=OURS, markersize=4, label="this run")
        if beside_report:
            values = [row[index] for row in REPORTED.values()]
            axes.plot(list(REPORTED), values, ":", marker=".", color=THEIRS, label="the report")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    figure.suptitle("After each epoch")
    return figure
