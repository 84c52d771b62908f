"""From a chest to an exposed radiograph: what lies in the beam's way, layer by layer, and what the film makes of it."""

import cv2
import numpy as np

from cxrfpn.data.phantom.canvas import Canvas, ellipse
from cxrfpn.data.phantom.chest import SIDES, Chest

# How much each part brightens the film. Air darkens it.
BODY, ABDOMEN, MEDIASTINUM, HEART, BONE, SPINE, BREAST = 0.50, 0.28, 0.23, 0.23, 0.085, 0.07, 0.09
AIR, VESSELS, TRACHEA = 0.37, 0.13, 0.07
# Ribs show less where the beam has more to pass through than lung.
RIBS_ELSEWHERE = 0.45
# So many pixels a side are enough for what is soft.
COARSE_SIDE = 64


class Film:
    """The layers of one radiograph, [S,S] float32 each, which the signs of findings change before it is exposed.

    air: 0 to 1, how much of the way leads through aerated lung. solid: tissue and bone, in brightness. vessels: 0 to 1,
    seen where there is air. lungs: 0 to 1, the lung fields. heart: 0 to 1.
    """

    def __init__(self, chest: Chest, canvas: Canvas, random: np.random.Generator) -> None:
        self.chest, self.canvas, self.random = chest, canvas, random
        self.coarse = canvas.coarse(COARSE_SIDE)
        self.lungs = canvas.fill(*(chest.lung(side) for side in SIDES))
        self.heart = canvas.fill(chest.heart_outline(), softness=0.007)
        middle = canvas.fill(chest.mediastinum_outline(), softness=0.009)
        self.centre = np.maximum(middle, self.heart)
        thick = self.coarse.fill(*(chest.lung(side) for side in SIDES), softness=0.05)
        self.air = self.lungs * (0.72 + 0.28 * canvas.enlarge(thick)) * (1 - 0.93 * self.centre)
        self.vessels = self._vessels()
        self.solid = self._soft_tissue() + self._bones()

    def lung(self, side: int) -> np.ndarray:
        """One of the lung fields [S,S], 0 to 1."""
        return self.canvas.fill(self.chest.lung(side))

    def haze(self, *outlines: np.ndarray, softness: float) -> np.ndarray:
        """Fill closed lines with hard edges -> [S,S], 0 to 1."""
        return self.canvas.enlarge(self.coarse.fill(*outlines, softness=softness))

    def outer_band(self, side: int, width: float) -> np.ndarray:
        """Return the part of a lung [S,S] within `width` of its outer edge and its apex."""
        outline = self.chest.lung(side)
        middle = np.array([side * 0.03, outline[:, 1].max()])  # shrinking towards it leaves the base and the midline
        size = np.abs(outline[:, 0]).max()
        return self.lung(side) * (
            1 - self.canvas.fill(middle + (outline - middle) * (1 - width / size), softness=0.003)
        )

    def expose(self, gain: float, offset: float, gamma: float, noise: float) -> np.ndarray:
        """Return the radiograph [S,S] uint8.

        Args:
            gain, offset: contrast about mid grey, and brightness.
            gamma: over 1 darkens the lungs more than the bones.
            noise: deviation of the quantum noise, in grey levels of 0..1.
        """
        bright = self.solid - (AIR - VESSELS * self.vessels) * self.air
        levels = np.clip((np.arange(256, dtype=np.float32) / 255 - 0.5) * gain + 0.5 + offset, 0, 1) ** gamma
        # Even draws, which cost a tenth of normal ones, come out normal enough when neighbours are mixed.
        grain = self.random.integers(0, 256, bright.shape, np.uint8).astype(np.float32)
        grain = (cv2.GaussianBlur(grain, (3, 3), 0.6) - np.float32(127.5)) * np.float32(noise * 255 / 37)
        bright = cv2.LUT(cv2.convertScaleAbs(np.maximum(bright, 0), alpha=255), (255 * levels).astype(np.float32))
        return cv2.convertScaleAbs(np.maximum(bright + grain, 0))

    def _soft_tissue(self) -> np.ndarray:
        """All of it drawn coarsely, since nothing of it has a sharp edge but the heart."""
        coarse, chest = self.coarse, self.chest
        body = coarse.fill(chest.body_outline(), softness=0.012)
        tissue = (0.35 * BODY + 0.65 * BODY * coarse.soften(body, 0.06)) * body  # thinner towards its edges
        if chest.breast:
            size = np.array([0.135, 0.125]) * chest.breast**0.5
            breasts = [ellipse((side * 0.215, chest.dome(side) - 0.03), size) for side in SIDES]
            tissue += BREAST * chest.breast * coarse.fill(*breasts, softness=0.018)
        tissue *= 1 + 0.03 * coarse.noise(self.random, 0.12)
        middle = MEDIASTINUM * coarse.fill(chest.mediastinum_outline(), softness=0.022)
        thick = body * np.maximum(middle, ABDOMEN * coarse.fill(chest.abdomen_outline(), softness=0.035))
        return self.canvas.enlarge(tissue) + np.maximum(self.canvas.enlarge(thick), HEART * self.heart)

    def _bones(self) -> np.ndarray:
        canvas, chest = self.canvas, self.chest
        posterior, anterior = chest.ribs()
        clavicles = np.stack([chest.clavicle(side) for side in SIDES])
        heads = [ellipse((side * 0.475 * chest.broad, chest.apex + 0.045), (0.04, 0.05)) for side in SIDES]
        ribs = self._tubes(posterior, 0.021, 1.25) + self._tubes(anterior, 0.021, 0.8)
        bones = ribs * (RIBS_ELSEWHERE + (1 - RIBS_ELSEWHERE) * self.lungs * (1 - self.centre)) + self._tubes(
            clavicles, 0.027, 1.3
        )
        bones += 0.7 * canvas.fill(*(chest.scapula(side) for side in SIDES), *heads, softness=0)
        return BONE * chest.bone * canvas.soften(bones, 0.0025) + self._spine()

    def _tubes(self, lines: np.ndarray, width: float, brightness: float) -> np.ndarray:
        """Bones along lines, their cortex brighter than their core."""
        whole, core = self.canvas.blank(), self.canvas.blank()
        self.canvas.stroke_into(whole, lines, width)
        self.canvas.stroke_into(core, lines, 0.55 * width)
        return cv2.addWeighted(whole, brightness / 255, core, -0.4 * brightness / 255, 0, dtype=cv2.CV_32F)

    def _spine(self) -> np.ndarray:
        canvas, top = self.canvas, self.chest.apex
        mask = canvas.blank()
        canvas.stroke_into(mask, np.array([[(0.0, -0.1), (0.0, 1.2)]]), 0.066)
        mask //= 2
        heights = np.arange(-0.06, 1.1, 0.048)
        vertebrae = np.stack([np.zeros((len(heights), 2)), np.stack([heights, heights + 0.036], axis=1)], axis=-1)
        canvas.stroke_into(mask, vertebrae, 0.056)
        windpipe = np.array([[(0.0, top - 0.2), (0.0, top + 0.05), (-0.006, top + 0.23)]])
        bronchi = np.array(
            [[(0.0, top + 0.22), (side * 0.03, top + 0.26), (side * 0.07, top + 0.31)] for side in SIDES]
        )
        air = canvas.blank()
        canvas.stroke_into(air, bronchi, 0.019)
        canvas.stroke_into(air, windpipe, 0.03)
        both = cv2.addWeighted(mask, SPINE * self.chest.bone / 255, air, -TRACHEA / 255, 0, dtype=cv2.CV_32F)
        return canvas.soften(both, 0.0055)

    def _vessels(self) -> np.ndarray:
        """Draw the hila, and from each a fan of vessels that fork and thin, a generation at once."""
        random, canvas = self.random, self.canvas
        chest = self.chest
        hila = np.array([(side * (chest.mediastinum + 0.022), chest.apex + 0.295 - 0.01 * side) for side in SIDES])
        start = np.repeat(hila, 9, axis=0)
        side = np.sign(start[:, 0])
        direction = np.deg2rad(np.tile(np.linspace(-75, 80, 9), 2) + random.normal(0, 7, 18))
        mask = canvas.blank()
        for width, length in ((0.0095, 0.085), (0.006, 0.07), (0.004, 0.06), (0.0026, 0.05)):
            length = length * random.uniform(0.8, 1.2, len(start))
            end = start + length[:, None] * np.stack([side * np.cos(direction), np.sin(direction)], axis=1)
            middle = (start + end) / 2 + random.normal(0, 0.05, (len(start), 2)) * length[:, None]
            canvas.stroke_into(mask, np.stack([start, middle, end], axis=1), width)
            turns = np.concatenate([random.uniform(0.15, 0.6, len(start)), -random.uniform(0.15, 0.6, len(start))])
            start, side, direction = np.tile(end, (2, 1)), np.tile(side, 2), np.tile(direction, 2) + turns
        roots = self.haze(*(ellipse(hilum, (0.032, 0.06)) for hilum in hila), softness=0.018)
        return np.minimum(canvas.soften(mask, 0.003) + 0.9 * roots, 1)
