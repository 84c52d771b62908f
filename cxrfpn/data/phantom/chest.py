"""The chest of one patient in one breath: outlines of the lungs, heart, bones and soft parts, from a few measures.

Coordinates are the canvas's. A side is -1 for the patient's right, which is on the viewer's left, and 1 for the left.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from cxrfpn.data.phantom.canvas import smooth

RIGHT, LEFT = -1, 1
SIDES = (RIGHT, LEFT)


@dataclass(frozen=True)
class Chest:
    """Measures as shares of the image's side, where nothing else is said.

    lung_width: from the midline to the chest wall. apex, domes (of the right and the left diaphragm): heights. heart:
    factor of its width (1 is a heart of 0.45 of the chest). knob: radius of the aortic knob. mediastinum: half its
    width. rib_slope: how far a rib falls from spine to side. broad: factor of the body's width. breast: factor of their
    size, 0 where there are none. scapulae: how far they lie over the lungs, 0 to 1. bone: factor of its density.
    flatness: of the diaphragm, 0 to 1. raised: the side of a raised diaphragm, 0 for none. sicker: the side where the
    opacities are that often come together.
    """

    lung_width: float
    apex: float
    domes: tuple[float, float]
    heart: float
    knob: float
    mediastinum: float
    rib_slope: float
    broad: float
    breast: float
    scapulae: float
    bone: float
    flatness: float
    raised: int
    sicker: int

    def dome(self, side: int) -> float:
        """Return the height of the top of the diaphragm on a side."""
        return self.domes[SIDES.index(side)]

    def _outer_edge(self, side: int) -> np.ndarray:
        """Corners [8,2] of a lung from its apex along the wall to the costophrenic angle, on the left."""
        angle = self.dome(side) + 0.10 * (1 - 0.6 * self.flatness)
        across = np.array([0.125, 0.20, 0.265, 0.315, 0.340, 0.350, 0.352, 0.352]) * self.lung_width / 0.35
        down = np.array([0.0, 0.04, 0.16, 0.37, 0.62, 0.86, 1.0, 1.0])
        return np.stack([across, self.apex + down * (angle - self.apex)], axis=1)

    def lung(self, side: int) -> np.ndarray:
        """Outline of a lung, closed, the part behind the heart with it."""
        edge, top, dome = self._outer_edge(side), self.apex, self.dome(side)
        wide, angle = self.lung_width / 0.35, edge[-1, 1]
        height, rise = angle - top, 0.85 * (angle - dome)
        rest = np.array([
            (0.315, angle - 0.55 * rise), (0.255, angle - 0.95 * rise), (0.185, dome), (0.115, dome + 0.015),
            (0.060, dome + 0.045), (0.045, dome + 0.02), (0.045, top + 0.6 * height), (0.045, top + 0.35 * height),
            (0.050, top + 0.15 * height), (0.075, top + 0.02),
        ])  # fmt: skip
        return smooth(np.concatenate([edge, rest * (wide, 1)]) * (side, 1), closed=True)

    def wall(self, side: int, y: float) -> float:
        """Where the outer edge of a lung lies at a height."""
        edge = self._outer_edge(side)
        return side * float(np.interp(y, edge[:, 1], edge[:, 0]))

    def place(self, side: int, across: float, down: float) -> np.ndarray:
        """Return a place [2] in a lung: `across` from the mediastinum (0) to the wall (1), `down` from apex to dome."""
        y = self.apex + down * (self.dome(side) - self.apex)
        inner = side * 0.07
        return np.array([inner + across * (self.wall(side, y) - inner), y])

    def heart_outline(self) -> np.ndarray:
        """Right atrium on the viewer's left, left ventricle on the right, resting on the diaphragm."""
        low = max(self.domes) + 0.03
        shape = [
            (-0.035, -0.34), (-0.075, -0.26), (-0.095, -0.16), (-0.085, -0.06), (-0.040, 0.0), (0.06, 0.02),
            (0.155, 0.005), (0.205, -0.045), (0.195, -0.11), (0.150, -0.19), (0.105, -0.26), (0.080, -0.32),
            (0.060, -0.36),
        ]  # fmt: skip
        factor = np.array([self.heart * self.lung_width / 0.35, 0.5 + 0.5 * self.heart])
        return smooth(np.array(shape) * factor + (0, low), closed=True)

    def mediastinum_outline(self) -> np.ndarray:
        """From the neck to the heart, with the aortic knob on the left."""
        half, knob = self.mediastinum, self.knob
        points = [
            (-0.05, -0.05), (-half, 0.12), (-half - 0.008, 0.25), (-half, 0.36), (-half, 0.75), (half, 0.75),
            (half, 0.36), (half + 0.3 * knob, 0.325), (half + knob, 0.30), (half + knob, 0.265),
            (half + 0.5 * knob, 0.235), (half, 0.20), (half, 0.12), (0.05, -0.05),
        ]  # fmt: skip
        return smooth(np.add(points, (0, self.apex - 0.11)), closed=True)

    def body_outline(self) -> np.ndarray:
        """Neck, shoulders and arms that leave the picture, and the flanks."""
        top = self.apex - 0.11
        half = [
            (0.085, -0.2), (0.090, top - 0.02), (0.12, top + 0.045), (0.24, top + 0.075), (0.38, top + 0.10),
            (0.47, top + 0.16), (0.52, top + 0.28), (0.53, top + 0.45), (0.46, top + 0.50), (0.44, top + 0.62),
            (0.45, 0.85), (0.47, 1.3),
        ]  # fmt: skip
        right = np.array(half) * (-self.broad, 1)
        left = np.array(half)[::-1] * (self.broad, 1)
        return smooth(np.concatenate([left, right]), closed=True)

    def abdomen_outline(self) -> np.ndarray:
        """Everything under the diaphragm."""
        right, left = self.domes
        wide = self.lung_width / 0.35
        points = [
            (-0.8, right + 0.16), (-0.36 * wide, right + 0.10), (-0.28 * wide, right + 0.02), (-0.19 * wide, right),
            (-0.06, right + 0.04), (0.06, left + 0.04), (0.19 * wide, left), (0.28 * wide, left + 0.02),
            (0.36 * wide, left + 0.10), (0.8, left + 0.16), (0.8, 1.6), (-0.8, 1.6),
        ]  # fmt: skip
        return smooth(points, closed=True)

    def ribs(self) -> tuple[np.ndarray, np.ndarray]:
        """Lines [n,points,2] of the posterior ribs and of the anterior ones."""
        wide, top = self.lung_width / 0.35, self.apex
        step = (max(self.domes) + 0.10 - top) / 9.5
        number = np.arange(10)
        y = top - 0.01 + number * step
        # The first ribs curve round the apex, the others meet the wall.
        reach = wide * np.minimum(0.375, 0.22 + 0.055 * number)
        fall = self.rib_slope * (0.55 + 0.09 * number)
        across = np.array([0.0, 0.15, 0.45, 0.75, 0.95, 1.0])
        drop = np.array([0.0, 0.0, 0.1, 0.4, 0.9, 1.4])
        lift = np.array([0.012, -0.004, -0.006, 0.0, 0.0, 0.0])
        posterior = np.stack(
            [0.03 + across * (reach[:, None] - 0.03), y[:, None] + lift + drop * fall[:, None]], axis=-1
        )
        front = number[1:8]
        low = y[front] + 1.4 * fall[front]
        across, drop = np.array([1.0, 0.97, 0.82, 0.58, 0.40]), np.array([0.0, 0.02, 0.06, 0.10, 0.115])
        anterior = np.stack([across * reach[front, None], low[:, None] + drop], axis=-1)
        return tuple(
            smooth(np.concatenate([lines * (side, 1) for side in SIDES]), rounds=2) for lines in (posterior, anterior)
        )

    def clavicle(self, side: int) -> np.ndarray:
        """From the sternum to the shoulder."""
        top = self.apex
        line = [(0.035, top + 0.075), (0.10, top + 0.055), (0.20, top + 0.005), (0.30, top - 0.025), (0.40, top - 0.02)]
        return smooth(line) * (side * self.broad, 1)

    def scapula(self, side: int) -> np.ndarray:
        """Shoulder blade; turned out of the lungs in a PA view with the arms forward, over them in an AP view."""
        inward = 0.075 * self.scapulae
        top = self.apex
        points = [
            (0.36 - inward, top + 0.02), (0.46, top - 0.01), (0.47, top + 0.07), (0.43 - inward, top + 0.22),
            (0.385 - inward, top + 0.34), (0.365 - inward, top + 0.33), (0.35 - inward, top + 0.18),
        ]  # fmt: skip
        return smooth(np.array(points) * (side * self.broad, 1), closed=True)


def draw_chest(
    random: np.random.Generator, age: float, sex: str, view_position: str, findings: Collection[str], extent: float
) -> Chest:
    """Draw the measures of a chest at random, as age, sex, view and the findings that change its shape have it.

    Args:
        extent: how far the findings go, 1 as usual.
    """
    female, ap = sex == "F", view_position == "AP"
    child = np.clip((16 - age) / 16, 0, 1)
    old = np.clip((age - 45) / 45, 0, 1)
    heart = 0.97 + 0.14 * ap + 0.10 * old + 0.22 * child + random.normal(0, 0.05)
    shallow = random.normal(0, 0.02) + 0.05 * ap + 0.03 * child  # a breath that leaves the diaphragm high
    domes = [0.665 - shallow, 0.69 - shallow]
    lung_width, flatness, slope = 0.345 - 0.015 * female - 0.03 * child, 0.0, 0.06 - 0.025 * child
    if "Emphysema" in findings:
        domes, lung_width = [dome + 0.075 * extent for dome in domes], lung_width + 0.015 * extent
        flatness, heart, slope = min(1.0, 0.9 * extent), heart - 0.17 * extent, slope - 0.02
    if "Cardiomegaly" in findings:
        heart += random.uniform(0.32, 0.5) * extent
    raised = 0
    if "Atelectasis" in findings:
        raised = int(random.choice(SIDES))
        domes[SIDES.index(raised)] -= 0.045 * extent
    if "Fibrosis" in findings:
        domes = [dome - 0.03 * extent for dome in domes]
    return Chest(
        lung_width=lung_width + random.normal(0, 0.012),
        apex=0.115 + random.normal(0, 0.012),
        domes=(domes[0] + random.normal(0, 0.008), domes[1] + random.normal(0, 0.008)),
        heart=heart,
        knob=0.022 + 0.022 * old + 0.008 * ap + random.normal(0, 0.004) - 0.01 * child,
        mediastinum=0.052 + 0.010 * ap + 0.010 * child + random.normal(0, 0.003),
        rib_slope=slope + random.normal(0, 0.008),
        broad=1.0 + random.normal(0, 0.03) - 0.04 * female - 0.05 * child,
        breast=float(female) * np.clip((age - 11) / 6, 0, 1) * random.uniform(0.6, 1.2),
        scapulae=random.uniform(0.6, 1.1) if ap else random.uniform(0.0, 0.35),
        bone=1.0 - 0.3 * old + random.normal(0, 0.08),
        flatness=flatness,
        raised=raised,
        sicker=int(random.choice(SIDES)),
    )
