"""Decide whether a picture looks like a frontal chest radiograph: a dozen statistics and a logistic regression.

The page in the browser has this earlier and simpler gate; gate_cxrfpn.py is that of all other engines. gate.json holds
its numbers, with the error rates that were measured.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FILE = Path(__file__).with_name("gate.json")
SIDE = 32
# Where lungs and mediastinum lie in an upright frontal chest, as rows and columns of the thumbnail.
LUNGS = (slice(8, 20), (slice(6, 13), slice(19, 26)))
MEDIASTINUM = (slice(8, 20), slice(14, 18))
STATISTICS = (
    "likeness to the mean chest", "symmetry", "lungs darker than mediastinum", "darkest side", "roughness",
    "strong edges", "share of black", "share of white", "spread of grey levels", "empty levels", "row bands",
    "vertical trend",
)  # fmt: skip


def thumbnail(pixels: np.ndarray, side: int = SIDE) -> np.ndarray:
    """[H,W] uint8 -> [side,side] float of 0..1, each pixel the mean of what it covers."""
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX), np.float64) / 255


def statistics(pixels: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Return the numbers that the gate decides by, in the order of STATISTICS.

    Args:
        pixels: [H,W] uint8 as the reader gives them.
        template: [SIDE,SIDE], the mean of many chests' thumbnails.
    """
    small, fine = thumbnail(pixels), thumbnail(pixels, 4 * SIDE)
    level = (small - small.mean()) / max(small.std(), 1e-6)
    rows, (right, left) = LUNGS
    middle = level[MEDIASTINUM].mean()
    steps = np.abs(np.diff(fine, axis=1))[1:] + np.abs(np.diff(fine, axis=0))[:, 1:]
    blurred = sum(np.roll(fine, shift, (0, 1)) for shift in ((0, 1), (1, 0), (0, -1), (-1, 0))) / 4
    histogram = np.histogram(fine, bins=64, range=(0, 1))[0] / fine.size
    share = histogram[histogram > 0]
    return np.array(
        [
            _correlation(level, template),
            _correlation(level, level[:, ::-1]),
            2 * middle - level[rows, right].mean() - level[rows, left].mean(),
            middle - max(level[rows, right].mean(), level[rows, left].mean()),
            np.log(np.abs(fine - blurred)[2:-2, 2:-2].mean() + 1e-4),
            np.log((steps > 0.2).mean() + 1e-4),
            histogram[0],
            histogram[-1],
            -(share * np.log(share)).sum(),
            (histogram < 1e-4).mean(),
            level.mean(axis=1).std(),
            level[20:].mean() - level[:12].mean(),
        ]
    )


def deviations(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Statistics [..., 12] -> [..., 24]: how far each lies from a chest's, with and without its sign.

    Without the sign, since a picture may be too smooth for a chest as well as too rough.
    """
    away = ((values - mean) / scale).clip(-6, 6)
    return np.concatenate([away, np.abs(away)], axis=-1)


@dataclass(frozen=True)
class Gate:
    """A fitted gate. `measured` holds its error rates, by kind of picture."""

    template: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: float
    measured: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path = FILE) -> "Gate":
        """Read what `python -m tools.fit_gate` wrote."""
        content = json.loads(path.read_text())
        arrays = {key: np.array(content[key], float) for key in ("template", "mean", "scale", "weights")}
        arrays["template"] = arrays["template"].reshape(SIDE, SIDE)
        return cls(**arrays, bias=content["bias"], measured=content["measured"])

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Turn statistics [..., 12] into scores [...]; above 0 the picture looks like a chest."""
        return deviations(values, self.mean, self.scale) @ self.weights + self.bias

    def passes(self, pixels: np.ndarray) -> bool:
        """Return whether [H,W] uint8 pixels look like a frontal chest radiograph."""
        return bool(self.scores(statistics(pixels, self.template)) > 0)


def describe_errors(measured: Mapping[str, Any]) -> str:
    """Return the gate's error rates in a few sentences."""
    lost, pictures = measured["turned away"], measured["pictures"]
    unseen = measured["let through, of a kind left out of fitting"]
    worst = max(unseen, key=unseen.get)
    others = [rate for kind, rate in unseen.items() if kind != worst]
    mean = sum(others) / len(others)
    return (
        f"What does not look like a chest radiograph is greyed. This turned away {lost['radiographs']:.1%} of "
        f"{pictures['radiographs']:,} test radiographs and {lost['phantoms']:.1%} of {pictures['phantoms']} phantoms. "
        f"Of drawn pictures of a kind that it was not fitted on, it let through {mean:.1%} on average, and "
        f"{unseen[worst]:.0%} of the worst kind, {worst}."
    )


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / max(np.sqrt((first**2).sum() * (second**2).sum()), 1e-6))
