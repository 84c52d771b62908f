"""Decide how well a picture fits what the network was trained on: upright frontal chest radiographs of adults.

A thumbnail and a dozen statistics go through a small network of its own. It does not depend on the model, and stays
valid when the model changes; `python -m tools.fit_gate` fits it, writes gate_weights_cxrfpn.py, and measures it.
"""

import base64
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .gate_weights_cxrfpn import WEIGHTS
except ImportError:
    from gate_weights_cxrfpn import WEIGHTS

# Sides of the thumbnail that the network sees, of the one whose places are known, and of the one for texture.
SIDE, PLACED_SIDE, FINE_SIDE = 16, 32, 128
# A picture this large is thinned out before it is shrunk; what is lost is finer than the texture that counts.
DENSEST_SIDE = 512
# Where lungs and mediastinum lie in an upright frontal chest, as rows and columns of the placed thumbnail.
LUNGS = (slice(8, 20), (slice(6, 13), slice(19, 26)))
MEDIASTINUM = (slice(8, 20), slice(14, 18))
STATISTICS = (
    "symmetry", "lungs darker than mediastinum", "darkest side", "lung against lung", "roughness", "strong edges",
    "share of black", "share of white", "spread of grey levels", "empty levels", "row bands", "vertical trend",
)  # fmt: skip
FEATURES = SIDE * SIDE + len(STATISTICS)
# To the mean thumbnail turned and mirrored, and to what is not symmetric in it, with and without its size.
LIKENESSES = 8 + 2
# Below it a film gets NOTE. The gate is fitted so that few radiographs fall below one half.
LEAST_FIT = 0.5
NOTE = (
    "This does not look like an upright frontal chest radiograph of an adult in normal polarity: "
    "the findings may mean nothing"
)


def film_fit(pixels: np.ndarray) -> float:
    """Return how well [H,W] uint8 pixels fit, 0..1; below LEAST_FIT they get NOTE."""
    return float(Gate.load().fit(features(pixels)[None])[0])


def fit_notes(fit: float) -> tuple[str, ...]:
    """Return what an answer with this fit has to note: NOTE, or nothing."""
    return (NOTE,) if fit < LEAST_FIT else ()


def features(pixels: np.ndarray) -> np.ndarray:
    """Return what the gate decides by, [FEATURES]: the thumbnail in standard units, then STATISTICS.

    Args:
        pixels: [H,W] uint8 as the reader gives them.
    """
    step = max(1, min(pixels.shape) // DENSEST_SIDE)
    picture = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step]))
    fine = np.asarray(picture.resize((FINE_SIDE, FINE_SIDE), Image.Resampling.BOX), np.float32) / 255
    placed = _shrink(fine, PLACED_SIDE)
    level = (placed - placed.mean()) / max(placed.std(), 1e-6)
    rows, (right, left) = LUNGS
    middle, right, left = level[MEDIASTINUM].mean(), level[rows, right].mean(), level[rows, left].mean()
    steps = np.abs(np.diff(fine, axis=1))[1:] + np.abs(np.diff(fine, axis=0))[:, 1:]
    inner = fine[1:-1, 1:-1]
    around = (fine[:-2, 1:-1] + fine[2:, 1:-1] + fine[1:-1, :-2] + fine[1:-1, 2:]) / 4
    share = np.bincount((fine * 63.999).astype(np.uint8).ravel(), minlength=64) / fine.size
    some = share[share > 0]
    statistics = [
        float((level * level[:, ::-1]).mean()),
        2 * middle - right - left,
        middle - max(right, left),
        right - left,
        np.log(np.abs(inner - around).mean() + 1e-4),
        np.log((steps > 0.2).mean() + 1e-4),
        share[0],
        share[-1],
        -(some * np.log(some)).sum(),
        (share < 1e-4).mean(),
        level.mean(axis=1).std(),
        level[20:].mean() - level[:12].mean(),
    ]
    return np.concatenate([_shrink(level, SIDE).ravel(), statistics]).astype(np.float32)


@dataclass(frozen=True)
class Gate:
    """A fitted gate: features are brought to units of radiographs by `mean` and `scale`, then pass two layers.

    The first layer also sees the statistics without their sign, since a picture may be too smooth for a radiograph as
    well as too rough; how far the thumbnail is from the mean one; and its likeness to the mean one in all eight ways of
    turning and mirroring it, and in what is not symmetric.
    """

    mean: np.ndarray
    scale: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray

    @classmethod
    @cache
    def load(cls) -> "Gate":
        """Read the weights of gate_weights_cxrfpn.py."""
        values = np.frombuffer(base64.b85decode("".join(WEIGHTS.split())), np.float16).astype(np.float32)
        inputs = FEATURES + len(STATISTICS) + LIKENESSES + 2
        units = (len(values) - 2 * FEATURES - 1) // (inputs + 2)
        sizes = np.cumsum([FEATURES, FEATURES, inputs * units, units, units])
        mean, scale, hidden, hidden_bias, output, output_bias = np.split(values, sizes)
        return cls(mean, scale, hidden.reshape(inputs, units), hidden_bias, output, output_bias)

    def inputs(self, values: np.ndarray) -> np.ndarray:
        """Features [N,FEATURES] -> what the first layer sees, [N,inputs]."""
        away = ((values - self.mean) / self.scale).clip(-4, 4)
        placed = away[:, : SIDE * SIDE]
        return np.concatenate(
            [
                away,
                np.abs(away[:, SIDE * SIDE :]),
                3 * self._likenesses(values[:, : SIDE * SIDE]),
                np.abs(placed).mean(axis=1, keepdims=True),
                (placed**2).mean(axis=1, keepdims=True),
            ],
            axis=1,
        )

    def _likenesses(self, thumbnails: np.ndarray) -> np.ndarray:
        mean = self.mean[: SIDE * SIDE].reshape(SIDE, SIDE)
        turned = [np.rot90(each, quarters).ravel() for each in (mean, mean[:, ::-1]) for quarters in range(4)]
        uneven = _unit((mean - mean[:, ::-1]).ravel()[None])[0]
        pictures = thumbnails.reshape(-1, SIDE, SIDE)
        theirs = _unit((pictures - pictures[:, :, ::-1]).reshape(len(pictures), -1))
        parts = [
            _unit(thumbnails) @ _unit(np.array(turned)).T,
            (theirs @ uneven)[:, None],
            (thumbnails @ uneven)[:, None],
        ]
        return np.concatenate(parts, axis=1)

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Features [N,FEATURES] -> scores [N]; above 0 the picture fits."""
        return np.maximum(self.inputs(values) @ self.hidden + self.hidden_bias, 0) @ self.output + self.output_bias

    def fit(self, values: np.ndarray) -> np.ndarray:
        """Features [N,FEATURES] -> fits [N], 0..1."""
        return 1 / (1 + np.exp(-self.scores(values).clip(-30, 30)))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Return rows without their mean, of length 1."""
    rows = rows - rows.mean(axis=-1, keepdims=True)
    return rows / (np.linalg.norm(rows, axis=-1, keepdims=True) + 1e-6)


def _shrink(level: np.ndarray, side: int) -> np.ndarray:
    """[n*side, n*side] -> [side, side], each the mean of what it covers."""
    size = len(level) // side
    return level.reshape(side, size, side, size).mean(axis=(1, 3))
