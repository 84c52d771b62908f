"""Fit the gate and measure it: python -m tools.fit_gate --source parquet:FOLDER --children FOLDER

Writes gate_weights_cxrfpn.py, results/gate.json and results/plots/gate.png. Takes some minutes on one core.
"""

import argparse
import base64
import json
import sys
import textwrap
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from cxrfpn.evaluation.intervals import Bootstrap, interval
from gate_cxrfpn import Gate
from tools.gate_pictures import FILMS, FOLDS, PHANTOMS, Pictures, gather

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS, FIGURES, PLOT = (
    ROOT / "gate_weights_cxrfpn.py",
    ROOT / "results" / "gate.json",
    ROOT / "results/plots/gate.png",
)
UNITS, RESAMPLES = 24, 300
# Of the radiographs that the gate was not fitted on.
KEPT = 0.99


class KindFigures(TypedDict):
    """How well the gate tells one kind of picture from radiographs; see `measure`."""

    pictures: int
    groups: int
    auroc: float
    auroc_ci: list[float] | None
    rejected: float
    rejected_ci: list[float] | None
    rejected_at_kept: float
    rejected_at_kept_ci: list[float] | None


class GateFigures(TypedDict):
    """results/gate.json."""

    kept: dict[str, float]
    films: int
    kinds: dict[str, KindFigures]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Fit and measure the gate of radiographs.")
    parser.add_argument("--source", required=True, help="radiographs with the splits train and test: parquet:FOLDER")
    parser.add_argument("--children", type=Path, required=True, help="a folder of parquet with children's radiographs")
    arguments = parser.parse_args()
    try:
        fitted, test = (gather(split, arguments.source, arguments.children) for split in ("train", "test"))
    except ValueError as error:
        print(f"fit_gate: {error}", file=sys.stderr)
        return 2
    gate, crossed = fit(fitted)
    figures = measure(fitted, crossed, test, gate)
    write_weights(gate, figures)
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1), f"\nwritten: {WEIGHTS}, {FIGURES}, {PLOT}")
    return 0


def fit(pictures: Pictures) -> tuple[Gate, NDArray[np.float64]]:
    """Fit the gate on all pictures, with the limit that kept radiographs of other folds; and what `cross_fit` gives."""
    crossed, limit = cross_fit(pictures)
    gate = train(pictures, np.ones(len(crossed), bool))
    gate = Gate(gate.mean, gate.scale, gate.hidden, gate.hidden_bias, gate.output, gate.output_bias - limit)
    return as_written(gate), crossed


def cross_fit(pictures: Pictures) -> tuple[NDArray[np.float64], float]:
    """Score each picture by a gate that was fitted on the patients and files of other folds.

    Returns:
        scores [N], above 0 where KEPT of the radiographs of the same fold are; and the mean of these limits.
    """
    scores, limits = np.empty(len(pictures.fold)), []
    for number in range(FOLDS):
        held_out = pictures.fold == number
        scores[held_out] = train(pictures, ~held_out).scores(pictures.features[held_out])
        limits.append(float(np.quantile(scores[held_out & (pictures.kind == FILMS)], 1 - KEPT)))
        scores[held_out] -= limits[-1]
    return scores, float(np.mean(limits))


def measure(fitted: Pictures, crossed: NDArray[np.float64], test: Pictures, gate: Gate) -> GateFigures:
    """Measure a gate on the test pictures; real pictures of others by `crossed`, since there are few.

    Args:
        fitted, crossed: the pictures that the gate was fitted on, and what `cross_fit` makes of them.

    Returns:
        `kept` {kind: share that passes} of radiographs; for each other kind `pictures`, `auroc`, `rejected`, the share
        that falls below the gate's own limit, and `rejected_at_kept`, the share where KEPT of the test radiographs
        pass; with intervals over patients or files.
    """
    scores, real = gate.scores(test.features), fitted.real
    films = test.kind == FILMS
    limit = np.quantile(scores[films], 1 - KEPT)
    figures: GateFigures = {
        "kept": {kind: round(float((scores[test.kind == kind] > 0).mean()), 4) for kind in (FILMS, PHANTOMS)},
        "films": int(films.sum()),
        "kinds": {},
    }
    curves = {}
    for kind in test.kinds() + [kind for kind in fitted.kinds() if kind in set(fitted.kind[real])]:
        mine = (crossed[real & (fitted.kind == kind)], fitted.group[real & (fitted.kind == kind)])
        if not len(mine[0]):
            mine = (scores[test.kind == kind], test.group[test.kind == kind])
        figures["kinds"][kind] = _measure_kind(scores[films], test.group[films], *mine, limit)
        curves[kind] = mine[0]
    draw(curves, scores[films])
    return figures


def _measure_kind(films: NDArray, patients: NDArray, others: NDArray, groups: NDArray, limit: float) -> KindFigures:
    labels = np.concatenate([np.ones(len(films)), np.zeros(len(others))])[:, None]
    values = np.concatenate([films, others])[:, None]
    # A manipulated film belongs to the same patient as the film itself.
    bootstrap = Bootstrap.draw(np.concatenate([patients, groups]), RESAMPLES)
    rejected = {"rejected": others <= 0, "rejected_at_kept": others <= limit}
    mine, count = bootstrap.of(np.arange(len(films), len(values))), len(np.unique(groups))
    shares = {name: round(float(below.mean()), 4) for name, below in rejected.items()}
    bounds = {
        name: _rounded(interval(mine.ratio(below, np.ones(len(below))), count)) for name, below in rejected.items()
    }
    return {
        "pictures": len(others),
        "groups": count,
        "auroc": round(float(bootstrap.once().auroc(labels, values)[0, 0]), 4),
        "auroc_ci": _rounded(interval(bootstrap.auroc(labels, values)[:, 0], count)),
        "rejected": shares["rejected"],
        "rejected_ci": bounds["rejected"],
        "rejected_at_kept": shares["rejected_at_kept"],
        "rejected_at_kept_ci": bounds["rejected_at_kept"],
    }


def draw(curves: dict[str, NDArray], films: NDArray) -> None:
    """Draw the ROC curve of each kind: the share rejected over the share of radiographs rejected with it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    limits = np.quantile(films, np.linspace(0, 0.1, 201))
    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    for index, (kind, others) in enumerate(curves.items()):
        rejected = [(others <= limit).mean() for limit in limits]
        axes.plot(np.linspace(0, 10, 201), 100 * np.array(rejected), "-" if index < 10 else "--", label=kind)
    axes.axvline(100 * (1 - KEPT), color="grey", linewidth=0.8)
    axes.set(xlabel="test radiographs rejected (%)", ylabel="others rejected (%)", ylim=(0, 101), xlim=(0, 10))
    axes.legend(fontsize=8, ncols=2, loc="lower right")
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=100)
    plt.close(figure)


def as_written(gate: Gate) -> Gate:
    """Round a gate to the half precision in which it is written."""
    parts = (gate.mean, gate.scale, gate.hidden, gate.hidden_bias, gate.output, gate.output_bias)
    return Gate(*(np.asarray(part, np.float16).astype(np.float32) for part in parts))


def write_weights(gate: Gate, figures: GateFigures) -> None:
    """Write gate_weights_cxrfpn.py."""
    parts = (gate.mean, gate.scale, gate.hidden, gate.hidden_bias, gate.output, gate.output_bias)
    values = np.concatenate([np.ravel(part) for part in parts]).astype(np.float16)
    lines = textwrap.wrap(base64.b85encode(values.tobytes()).decode(), 116)
    measured = {"kept": figures["kept"][FILMS], "rejected": {k: v["rejected"] for k, v in figures["kinds"].items()}}
    WEIGHTS.write_text(
        '"""The weights of gate_cxrfpn.py and what was measured of it, written by `python -m tools.fit_gate`."""\n\n'
        "# fmt: off\n# ruff: noqa: E501\n"
        f"MEASURED = {json.dumps(measured)}\n"
        'WEIGHTS = r"""\n' + "\n".join(lines) + '\n"""\n'
    )


def train(pictures: Pictures, rows: NDArray[np.bool_]) -> Gate:
    """Train a gate on some of the pictures, drawn by their `weights`."""
    from sklearn.neural_network import MLPClassifier

    values, fits = pictures.features[rows], pictures.fits[rows]
    plain = values[pictures.kind[rows] == FILMS]
    gate = as_written(Gate(plain.mean(axis=0), plain.std(axis=0) + 1e-3, *[np.zeros(1)] * 4))
    # Strongly regularised: few kinds of other pictures stand for all of them.
    network = MLPClassifier((UNITS,), alpha=3.0, learning_rate_init=2e-3, batch_size=256, max_iter=60, random_state=0)
    chosen = np.random.default_rng(0).choice(len(values), 2 * len(values), p=pictures.weights(rows))
    network.fit(gate.inputs(values)[chosen], fits[chosen])
    (hidden, output), (hidden_bias, output_bias) = network.coefs_, network.intercepts_
    return Gate(gate.mean, gate.scale, hidden, hidden_bias, output[:, 0], output_bias)


def _rounded(bounds: tuple[float, float] | None) -> list[float] | None:
    return None if bounds is None else [round(bound, 4) for bound in bounds]


if __name__ == "__main__":
    sys.exit(main())
