"""Radiographs as they should not come (negatives, on their side, upside down, mirrored, cropped), and as they may.

All take [H,W] uint8 and give such pixels.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Manipulation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def crop(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Keep a sixth to a third of the area, anywhere."""
    share = np.sqrt(random.uniform(1 / 6, 1 / 3))
    height, width = (max(8, round(share * side)) for side in pixels.shape)
    top, left = (
        random.integers(0, whole - part + 1) for whole, part in zip(pixels.shape, (height, width), strict=True)
    )
    return pixels[top : top + height, left : left + width]


# What the gate should reject.
UNFIT: dict[str, Manipulation] = {
    "negative": lambda pixels, random: 255 - pixels,
    "on its side": lambda pixels, random: np.rot90(pixels, random.choice((1, 3))),
    "upside down": lambda pixels, random: pixels[::-1, ::-1],
    "mirrored": lambda pixels, random: pixels[:, ::-1],
    "heavily cropped": crop,
}  # fmt: skip


def expose(pixels: np.ndarray, random: np.random.Generator, most: float = 0.35) -> np.ndarray:
    """Darken or brighten by a gamma of up to e to the power of `most`, either way."""
    gamma = np.exp(random.uniform(-most, most))
    return (255 * (np.arange(256) / 255) ** gamma).round().astype(np.uint8)[pixels]


def frame(pixels: np.ndarray, random: np.random.Generator, most: float = 0.08) -> np.ndarray:
    """Add a black border to each edge, of up to a share `most` of the side."""
    height, width = pixels.shape
    rows, columns = ((random.uniform(0, most, 2) * side).astype(int) for side in (height, width))
    return np.pad(pixels, (tuple(rows), tuple(columns)))


def mark(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Write a white marker into a corner, as large as a film's own."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    height, width = pixels.shape
    size = max(8, round(0.07 * min(height, width)))
    place = (random.uniform(0.02, 0.12) * width if random.random() < 0.5 else random.uniform(0.72, 0.85) * width,
             random.uniform(0.02, 0.1) * height)  # fmt: skip
    text = str(random.choice(["L", "R", "PORTABLE", "AP", "ERECT"]))
    ImageDraw.Draw(image).text(place, text, 255, ImageFont.load_default(size))
    return np.asarray(image)


def vary(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Make another film that is just as fit: exposure, border, marker, a slight crop."""
    margins = [random.uniform(0, 0.04) for _ in range(4)]
    height, width = pixels.shape
    pixels = pixels[
        int(margins[0] * height) : height - int(margins[1] * height),
        int(margins[2] * width) : width - int(margins[3] * width),
    ]
    pixels = expose(pixels, random)
    pixels = frame(pixels, random) if random.random() < 0.5 else pixels
    return mark(pixels, random) if random.random() < 0.5 else pixels
