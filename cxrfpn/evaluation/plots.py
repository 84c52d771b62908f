"""Pictures of a scored split: a small panel a finding, two colours that any eye tells apart, legible in a README."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve
from tqdm import tqdm

from cxrfpn.evaluation.calibration import reliability
from cxrfpn.evaluation.figures import Estimate, Figures
from cxrfpn.evaluation.predictions import Scored
from cxrfpn.style import BLUE, GREY, ORANGE, STYLE, save_figure

# A histogram of the scores of N images: so many bars.
_BARS = 25


def save_plots(
    folder: Path,
    scored: Scored,
    figures: Figures,
    probabilities: NDArray[np.float64] | None,
    examples: Mapping[str, NDArray[np.uint8]],
) -> list[Path]:
    """Draw everything there is to draw into `folder`.

    Args:
        scored: labels and scores of the images.
        figures: as metrics.json holds them.
        probabilities: calibrated, [N,F]; None where there is no calibration.
        examples: image id -> pixels [S,S] of a few of the images; may be empty.

    Returns:
        the files written: auroc, roc, precision_recall, confusion, calibration, histograms and, where there are
        images, examples, each a PNG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, Callable[[], Figure]] = {
        "auroc": lambda: draw_auroc(figures),
        "roc": lambda: draw_roc(scored, figures),
        "precision_recall": lambda: draw_precision_recall(scored, figures),
        "confusion": lambda: draw_confusion(figures),
        "calibration": lambda: draw_calibration(scored, probabilities),
        "histograms": lambda: draw_histograms(scored, figures),
    }
    if examples:
        drawings["examples"] = lambda: draw_examples(scored, figures, examples)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, draw in tqdm(drawings.items(), desc="drawing", unit=" plots"):
            path = folder / f"{name}.png"
            save_figure(draw(), path)
            written.append(path)
    return written


def draw_auroc(figures: Figures) -> Figure:
    """Draw a bar a finding with its interval, beside what age, view and sex alone reach."""
    known = {name: figure["auroc"] for name, figure in figures["findings"].items() if figure["auroc"] is not None}
    names = sorted(known, key=known.__getitem__)
    areas = np.array([known[name] for name in names])
    missing = (np.nan, np.nan)
    bounds = np.array([figures["findings"][name]["auroc_ci"] or missing for name in names]).reshape(-1, 2)
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    # An interval's end may lie on the wrong side of the figure itself where a finding is very rare.
    errors = np.abs(np.stack([np.maximum(areas - bounds[:, 0], 0), np.maximum(bounds[:, 1] - areas, 0)]))
    rows = [_pretty(name) for name in names]
    axes.barh(rows, areas, xerr=errors, color=BLUE, height=0.65, error_kw={"lw": 1.2, "capsize": 2.5})
    baseline = figures["baselines"].get("patient_only")
    if baseline:
        by_patient = [baseline["findings"][name] for name in names]
        axes.scatter(
            by_patient,
            rows,
            color=ORANGE,
            marker="D",
            s=22,
            zorder=3,
            label="age, view and sex alone",
        )
        figure.legend(loc="outside lower center", frameon=False)
    for row, area in zip(rows, areas, strict=True):
        axes.text(1.06, row, f"{area:.3f}", va="center", ha="right")
    axes.axvline(0.5, color=GREY, lw=1, ls="--")
    bounded = "95 % interval; none with positives of few patients" if np.isnan(bounds).any() else "95 % interval"
    axes.set(xlim=(0.3, 1.07), xlabel=f"AUROC ({bounded})", title=_title(figures))
    return figure


def draw_roc(scored: Scored, figures: Figures) -> Figure:
    """ROC curves, with the point at which the threshold lies."""
    figure, panels = _panels("1 - specificity", "sensitivity", scored.findings)
    for index, finding, axes in panels:
        figures_here = figures["findings"][finding]
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
        if figures_here["specificity"] is not None:
            false_positives, true_positives, _ = roc_curve(*_known(scored, index))
            axes.plot(false_positives, true_positives, color=BLUE, lw=1.4)
            axes.plot(1 - figures_here["specificity"], figures_here["recall"], "o", color=ORANGE, ms=5)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=_named(finding, "AUROC", figures_here["auroc"]))
    _key(figure, len(scored.findings), {"ROC curve": BLUE, "at the threshold": ORANGE, "chance": GREY})
    return figure


def draw_precision_recall(scored: Scored, figures: Figures) -> Figure:
    """Precision over recall; the dashed line is the share of positives, which is what chance reaches."""
    figure, panels = _panels("recall", "precision", scored.findings)
    for index, finding, axes in panels:
        figures_here = figures["findings"][finding]
        if figures_here["average_precision"] is not None:
            labels, scores = _known(scored, index)
            axes.axhline(labels.mean(), color=GREY, lw=0.8, ls="--")
            precision, recall, _ = precision_recall_curve(labels, scores)
            axes.step(recall, precision, where="post", color=BLUE, lw=1.4)
            axes.plot(figures_here["recall"], figures_here["precision"], "o", color=ORANGE, ms=5)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=_named(finding, "AP", figures_here["average_precision"]))
    _key(figure, len(scored.findings), {"precision-recall": BLUE, "at the threshold": ORANGE, "chance": GREY})
    return figure


def draw_confusion(figures: Figures) -> Figure:
    """Confusion matrices; the shade is the share of the row, so that rare findings show."""
    figure, panels = _panels("called", "truth", tuple(figures["findings"]))
    for _, finding, axes in panels:
        counts = np.array(figures["findings"][finding]["confusion"])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            ink = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, f"{count:,}\n{shares[row, column]:.0%}", ha="center", va="center", color=ink)
        axes.set(title=_named(finding, "F1", figures["findings"][finding]["f1"]))
        axes.set_xticks([0, 1], ["no", "yes"])
        axes.set_yticks([0, 1], ["no", "yes"])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    axes = figure.axes[len(figures["findings"])]
    axes.axis("off")
    axes.text(0.5, 0.5, "images, and their\nshare of the row", ha="center", va="center")
    return figure


def draw_calibration(scored: Scored, probabilities: NDArray[np.float64] | None) -> Figure:
    """Reliability: what was said against what was so, before and after calibration, in bins of equally many images."""
    figure, panels = _panels("score or probability", "share of positives", scored.findings)
    for index, finding, axes in panels:
        known, sets = ~np.isnan(scored.truth[:, index]), [(scored.scores, ORANGE, "s")]
        if probabilities is not None and not np.isnan(probabilities[:, index]).any():
            sets.append((probabilities, BLUE, "o"))
        top = 0.05
        for values, colour, marker in sets if known.any() else ():
            predicted, observed, _ = reliability(scored.labels[known, index], values[known, index]).T
            axes.plot(predicted, observed, color=colour, marker=marker, ms=3.5, lw=1.1)
            top = max(top, predicted.max(), observed.max())
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
        axes.set(xlim=(0, 1.08 * top), ylim=(0, 1.08 * top), title=_pretty(finding))
    _key(figure, len(scored.findings), {"score": ORANGE, "probability": BLUE, "perfect": GREY})
    return figure


def draw_histograms(scored: Scored, figures: Figures) -> Figure:
    """Scores of images with and without a finding, each as shares of its own kind, and the threshold."""
    figure, panels = _panels("score", "share of images", scored.findings)
    edges = np.linspace(0, 1, _BARS + 1)
    for index, finding, axes in panels:
        for present, colour in ((False, BLUE), (True, ORANGE)):
            values = scored.scores[scored.truth[:, index] == present, index]
            if len(values):
                shares = np.histogram(values, edges)[0] / len(values)
                axes.stairs(shares, edges, color=colour, fill=True, alpha=0.45)
                axes.stairs(shares, edges, color=colour, lw=1)
        axes.axvline(figures["findings"][finding]["threshold"], color="black", lw=1, ls=":")
        axes.set(xlim=(0, 1), title=_named(finding, "n", figures["findings"][finding]["positives"]))
    _key(figure, len(scored.findings), {"without the finding": BLUE, "with the finding": ORANGE, "threshold": "black"})
    return figure


def draw_examples(scored: Scored, figures: Figures, examples: Mapping[str, NDArray[np.uint8]]) -> Figure:
    """Radiographs with their true and called findings, four in a row."""
    rows = -(-len(examples) // 4)
    figure = Figure(figsize=(10, 3.3 * rows))
    margins = {"left": 0.01, "right": 0.99, "top": 1 - 0.08 / rows, "bottom": 0.2 / rows}
    grid = figure.subplots(rows, 4, squeeze=False, gridspec_kw={**margins, "wspace": 0.05, "hspace": 0.36}).flat
    places = {name: place for place, name in enumerate(scored.metadata["image_id"])}
    thresholds = np.array([figures["findings"][finding]["threshold"] for finding in scored.findings])
    for axes in grid:
        axes.axis("off")
    for axes, (name, pixels) in zip(figure.axes, sorted(examples.items()), strict=False):
        truth, calls = scored.labels[places[name]], scored.scores[places[name]] >= thresholds
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        axes.set_title(name, fontsize=8, loc="left", pad=3)
        truth_text, called = f"true: {_listed(truth, scored.findings)}", f"called: {_listed(calls, scored.findings)}"
        colour = BLUE if (truth == calls).all() else ORANGE
        text = {"transform": axes.transAxes, "va": "top", "fontsize": 8}
        axes.text(0, -0.02, truth_text, **text)
        axes.text(0, -0.02 - 0.065 * (1 + truth_text.count("\n")), called, color=colour, **text)
    return figure


def _known(scored: Scored, index: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return the labels and scores of a finding in the images in which it is known."""
    known = ~np.isnan(scored.truth[:, index])
    return scored.labels[known, index], scored.scores[known, index]


def _panels(across: str, up: str, findings: Sequence[str]) -> tuple[Figure, Iterator[tuple[int, str, Axes]]]:
    """Make a figure of panels, five in a row and one a finding, and one more for a key."""
    rows = len(findings) // 5 + 1
    height = 0.9 + 1.97 * rows
    figure = Figure(figsize=(10.5, height))
    # The same for every figure; letting matplotlib find out would take it seconds.
    margins = {"left": 0.075, "right": 0.985, "bottom": 0.58 / height, "top": 1 - 0.48 / height}
    grid = figure.subplots(rows, 5, squeeze=False, gridspec_kw={**margins, "wspace": 0.38, "hspace": 0.55})
    for axes in grid.flat[len(findings) + 1 :]:
        axes.axis("off")
    figure.supxlabel(across, fontsize=10)
    figure.supylabel(up, fontsize=10)
    return figure, iter([(index, finding, grid.flat[index]) for index, finding in enumerate(findings)])


def _key(figure: Figure, place: int, colours: Mapping[str, str]) -> None:
    axes = figure.axes[place]
    axes.axis("off")
    for name, colour in colours.items():
        axes.plot([], [], color=colour, lw=4, label=name)
    axes.legend(loc="center", frameon=False, fontsize=10, handlelength=1.2)


def _title(figures: Figures) -> str:
    images = f"{figures['images']:,} images"
    if figures["mean_auroc"] is None:
        return images
    return f"mean AUROC {Estimate.of(figures, 'mean_auroc').text()}, {images}"


def _named(finding: str, what: str, value: float | int | None) -> str:
    text = "undefined" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    return f"{_pretty(finding)}\n{what} {text}"


def _pretty(finding: str) -> str:
    return finding.replace("_", " ")


def _listed(which: NDArray[np.bool_], findings: Sequence[str]) -> str:
    """Names in lines of two, so that they fit below a radiograph."""
    names = [_pretty(finding) for finding, there in zip(findings, which, strict=True) if there]
    lines = [", ".join(names[start : start + 2]) for start in range(0, min(len(names), 6), 2)]
    return ("\n".join(lines) + (", ..." if len(names) > 6 else "")) or "no finding"
