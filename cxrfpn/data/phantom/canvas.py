"""Soft shapes in chest coordinates: x grows to the viewer's right from the midline at 0, y down from 0 to 1."""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

# OpenCV draws at places of 1/16 pixel.
_SHIFT = 4


class Canvas:
    """Draws on squares of `side` pixels, through one placing of the patient before the detector.

    Args:
        side: of the image, in pixels.
        rotation_degrees, scale, shift: how the patient stands; the shift as shares of the side.
    """

    def __init__(
        self, side: int, rotation_degrees: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        self.side = side
        self.placing = (rotation_degrees, scale, shift)
        angle = np.deg2rad(rotation_degrees)
        turn = scale * side * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self._turn = turn
        # The middle of the chest, (0, 0.5), comes to the middle of the image.
        self._origin = side * (0.5 + np.array(shift)) - turn.T @ np.array([0.0, 0.5])
        self.scale = scale * side

    def coarse(self, side: int) -> "Canvas":
        """Return a canvas of the same placing with fewer pixels, where what is soft anyway is drawn in less time."""
        return Canvas(min(side, self.side), *self.placing)

    def enlarge(self, image: np.ndarray) -> np.ndarray:
        """Bring what was drawn on a coarse canvas to this one's pixels."""
        return cv2.resize(image, (self.side, self.side), interpolation=cv2.INTER_LINEAR)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Places [...,2] in the chest -> in pixels."""
        return np.asarray(points, float) @ self._turn + self._origin

    def blank(self) -> np.ndarray:
        """Return an empty mask [S,S] uint8."""
        return np.zeros((self.side, self.side), np.uint8)

    def fill(self, *outlines: np.ndarray, softness: float = 0.004) -> np.ndarray:
        """Fill closed lines [n,2] -> [S,S] float32 from 0 to 1, the edge blurred by `softness`."""
        mask = self.blank()
        for outline in outlines:
            cv2.fillPoly(mask, [self._fixed(outline)], 255, cv2.LINE_AA, _SHIFT)
        return self.soften(mask, softness)

    def strokes(self, lines: np.ndarray, width: float, softness: float = 0.0) -> np.ndarray:
        """Open lines [n,points,2] of a width -> [S,S] float32 from 0 to 1; under a pixel they are fainter instead."""
        mask = self.blank()
        self.stroke_into(mask, lines, width)
        return self.soften(mask, softness)

    def stroke_into(self, mask: np.ndarray, lines: np.ndarray, width: float) -> None:
        """Draw open lines [n,points,2] of a width over a mask [S,S] uint8."""
        pixels = width * self.scale
        value = round(255 * min(pixels, 1.0))
        # Wide lines are softened anyway, and OpenCV is slow at wide ones with smooth edges.
        kind = cv2.LINE_AA if pixels < 1.5 else cv2.LINE_8
        cv2.polylines(mask, list(self._fixed(lines)), False, value, max(1, round(pixels)), kind, _SHIFT)

    def soften(self, mask: np.ndarray, softness: float) -> np.ndarray:
        """Blur [S,S] uint8 or float32 -> float32, uint8 as 0..1."""
        if softness * self.scale > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), softness * self.scale, borderType=cv2.BORDER_REPLICATE)
        return mask * np.float32(1 / 255) if mask.dtype == np.uint8 else mask

    def noise(self, random: np.random.Generator, grain: float) -> np.ndarray:
        """Cloudy noise [S,S] float32 of mean 0 and deviation 1, its clouds `grain` wide."""
        cells = max(2, round(1 / grain))
        coarse = random.standard_normal((cells, cells), np.float32)
        clouds = cv2.resize(coarse, (self.side, self.side), interpolation=cv2.INTER_CUBIC)
        return clouds * np.float32(1.35)  # what interpolation takes from the deviation

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        # OpenCV counts from the middle of the first pixel.
        return np.rint((self.pixels(points) - 0.5) * 2**_SHIFT).astype(np.int32)


def smooth(points: Sequence[Sequence[float]] | np.ndarray, closed: bool = False, rounds: int = 3) -> np.ndarray:
    """Round the corners of lines [..., n, 2] by cutting them (Chaikin, 1974); one given twice stays sharper."""
    points = np.asarray(points, float)
    return _cutting(points.shape[-2], closed, rounds) @ points


@cache
def _cutting(corners: int, closed: bool, rounds: int) -> np.ndarray:
    """Return the matrix [points, corners] of so many rounds of cutting, each of which is linear."""
    line = np.eye(corners)
    for _ in range(rounds):
        after = np.roll(line, -1, axis=0) if closed else line[1:]
        before = line if closed else line[:-1]
        cut = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], axis=1).reshape(-1, corners)
        line = cut if closed else np.concatenate([line[:1], cut, line[-1:]])
    return line


def ellipse(centre: Sequence[float], radii: Sequence[float], turn_degrees: float = 0.0, points: int = 40) -> np.ndarray:
    """Return an ellipse as a closed line [points,2]."""
    turn = np.deg2rad(turn_degrees)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return _circle(points) * radii @ axes + centre


@cache
def _circle(points: int) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def blob(random: np.random.Generator, centre: np.ndarray, radii: np.ndarray, roughness: float) -> np.ndarray:
    """Return an irregular round shape as a closed line."""
    reach = 1 + roughness * random.uniform(-1, 1, (9, 1))
    return smooth(_circle(9) * reach * radii + centre, closed=True)
