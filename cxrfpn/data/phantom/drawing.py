"""A synthetic frontal chest radiograph, with its findings and where they are."""

from collections.abc import Sequence

import cv2
import numpy as np

from cxrfpn.data.phantom.canvas import Canvas
from cxrfpn.data.phantom.chest import draw_chest
from cxrfpn.data.phantom.film import Film
from cxrfpn.data.phantom.signs import SIGNS
from cxrfpn.data.schema import Box

# What of a sign belongs to its box: everything at least this clear.
BOX_LEVEL = 0.35


def draw_phantom(
    random: np.random.Generator,
    age: float = 50,
    sex: str = "M",
    view_position: str = "PA",
    findings: Sequence[str] = (),
    side: int = 256,
    extent: float = 1.0,
    contrast: float = 1.0,
) -> tuple[np.ndarray, tuple[Box, ...]]:
    """Draw one phantom. It is synthetic, and says so in its lower corner.

    Args:
        random: the rest (habitus, exposure, positions) is drawn from it.
        age: years.
        sex: "M" or "F". view_position: "PA" or "AP".
        findings: names out of FINDINGS; each is drawn by its textbook sign.
        side: of the square image, in pixels.
        extent, contrast: factors of the size of the signs and of how clearly they show.

    Returns:
        pixels [side,side] uint8, and a box for each finding (for each nodule of several).
    """
    ap = view_position == "AP"
    chest = draw_chest(random, age, sex, view_position, findings, extent)
    canvas = Canvas(
        side, random.normal(0, 1.2 + ap), random.uniform(0.97, 1.1), tuple(random.normal(0, (0.012, 0.015), 2))
    )
    film = Film(chest, canvas, random)
    boxes = []
    for finding in sorted(findings, key=list(SIGNS).index):
        boxes += [_box(finding, where) for where in SIGNS[finding](film, extent, contrast) if where.any()]
    pixels = film.expose(
        gain=random.normal(1.05 - 0.12 * ap, 0.08),
        offset=random.normal(0.02 + 0.03 * ap, 0.035),
        gamma=np.exp(random.normal(0, 0.12)),
        noise=random.uniform(0.006, 0.016),
    )
    _mark(pixels, random)
    return pixels, tuple(boxes)


def _box(finding: str, where: np.ndarray) -> Box:
    """Return the box round the clear part of a sign."""
    clear = (where >= BOX_LEVEL * where.max()).astype(np.uint8)
    left, top, width, height = (value / len(where) for value in cv2.boundingRect(clear))
    return Box(finding, left, top, width, height)


def _mark(pixels: np.ndarray, random: np.random.Generator) -> None:
    """Draw the marker of the patient's left side, and the words that say there is no patient."""
    side = len(pixels)
    corner = (round(side * random.uniform(0.86, 0.94)), round(side * random.uniform(0.05, 0.11)))
    cv2.putText(pixels, "L", corner, cv2.FONT_HERSHEY_SIMPLEX, side / 420, 235, max(1, side // 220), cv2.LINE_AA)
    cv2.putText(
        pixels, "SYNTHETIC", (side // 64, side - side // 64), cv2.FONT_HERSHEY_SIMPLEX, side / 760, 235,
        max(1, side // 512), cv2.LINE_AA,
    )  # fmt: skip
