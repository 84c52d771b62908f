"""The 14 findings, each drawn by its textbook sign.

The signs are those of Felson, "Chest Roentgenology", 1973, and of Hansell et al., "Fleischner Society: glossary of
terms for thoracic imaging", 2008.

A sign changes a film and gives back where it is, a mask [S,S] float32 from 0 to 1 for each place. `extent` scales its
size and `contrast` how clearly it shows; 1 is the usual. Cardiomegaly, emphysema, atelectasis and fibrosis change the
chest's shape as well, which `draw_chest` has seen to.
"""

from collections.abc import Callable

import numpy as np

from cxrfpn.data.phantom.canvas import blob, ellipse, smooth
from cxrfpn.data.phantom.chest import SIDES
from cxrfpn.data.phantom.film import Film

Sign = Callable[[Film, float, float], list[np.ndarray]]


def _opacify(film: Film, where: np.ndarray, density: float) -> None:
    """Fill lung with something denser, which hides its vessels; dense enough, it is as bright as the heart."""
    film.air *= 1 - np.minimum(density * where, 0.97)


def _side(film: Film) -> int:
    return int(film.random.choice(SIDES))


def _clouds(film: Film, grain: float) -> np.ndarray:
    """Cloudy noise between 0 and 1."""
    return np.clip(0.55 + 0.35 * film.canvas.noise(film.random, grain), 0, 1)


def atelectasis(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Plates: bands of opacity above a raised half of the diaphragm."""
    random, chest = film.random, film.chest
    side = chest.raised or _side(film)
    where = np.zeros_like(film.air)
    for height in random.uniform(0.03, 0.07) + np.array([0.0, 0.045]):
        middle = np.array([side * random.uniform(0.19, 0.22), chest.dome(side) - height])
        half = extent * np.array([random.uniform(0.07, 0.09), random.uniform(-0.02, 0.012)]) * (side, 1)
        bend = np.add(middle, (0, 0.008))
        plate = film.canvas.strokes(smooth([[middle - half, bend, middle + half]]), 0.017 * extent, 0.004)
        where = np.maximum(where, plate)
    where *= film.lung(side)
    _opacify(film, where, 0.75 * contrast)
    return [where]


def cardiomegaly(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Draw a heart wider than half of the chest: the shape has it already."""
    return [film.heart]


def effusion(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Fluid that fills the costophrenic angle, its upper edge a meniscus that climbs the wall."""
    side, chest = film.chest.sicker, film.chest
    depth = extent * film.random.uniform(0.06, 0.17)
    level, wall = chest.dome(side) + 0.03 - depth, 0.40
    edge = np.array(
        [(0.0, level + 0.05), (0.10, level + 0.045), (0.20, level + 0.03), (0.29, level - 0.01), (wall, level - 0.11)]
    )
    fluid = smooth(np.concatenate([edge * (side, 1), [(side * wall, 1.0), (0.0, 1.0)]]), closed=False)
    where = film.canvas.fill(fluid, softness=0.008) * film.lung(side)
    _opacify(film, where, 0.97 * contrast)
    return [where]


def infiltration(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Ill-defined haze with a streaky grain, through which vessels are still seen."""
    side = film.chest.sicker
    centre = film.chest.place(side, film.random.uniform(0.3, 0.7), film.random.uniform(0.4, 0.85))
    radii = extent * film.random.uniform(0.09, 0.13, 2)
    zone = film.haze(blob(film.random, centre, radii, 0.3), softness=0.03) * film.lung(side)
    _opacify(film, zone * _clouds(film, 0.02), 0.75 * contrast)
    return [zone]


def _round(film: Film, radius: float, roughness: float, contrast: float) -> np.ndarray:
    side = _side(film)
    centre = film.chest.place(side, film.random.uniform(0.3, 0.8), film.random.uniform(0.15, 0.85))
    where = film.canvas.fill(blob(film.random, centre, (radius, radius), roughness), softness=0.0035)
    _opacify(film, where, 0.85 * contrast)
    film.solid += 0.05 * contrast * where * film.lung(side)
    return where


def mass(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Draw a round opacity over 3 cm wide, its edge lobed."""
    return [_round(film, extent * film.random.uniform(0.055, 0.085), 0.16, contrast)]


def nodule(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Round opacities under 3 cm, one to three of them."""
    count = film.random.integers(1, 4)
    return [_round(film, extent * film.random.uniform(0.017, 0.028), 0.06, contrast) for _ in range(count)]


def pneumonia(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Bronchopneumonia: fluffy patches that run into each other, in one zone of a lung."""
    side = film.chest.sicker
    middle = film.chest.place(side, 0.5, film.random.uniform(0.55, 0.8))
    patches = []
    for _ in range(9):
        centre = middle + film.random.normal(0, 0.035 * extent, 2)
        patches.append(blob(film.random, centre, extent * film.random.uniform(0.02, 0.04, 2), 0.3))
    where = film.canvas.fill(*patches, softness=0.01) * film.lung(side)
    _opacify(film, where, 0.85 * contrast)
    return [where]


def pneumothorax(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Air outside the lung: black and without vessels, within a fine white line, the lung within it denser."""
    side = _side(film)
    width = extent * film.random.uniform(0.06, 0.10)
    where = film.outer_band(side, width)
    inner = film.canvas.soften(np.clip(film.lung(side) - where, 0, 1), 0.003)
    rim = np.clip(4 * inner * (1 - inner), 0, 1) * film.canvas.soften(where, 0.01)
    film.vessels *= 1 - where
    film.air += contrast * (0.35 * where * film.lung(side) - 0.12 * inner * film.air)
    film.solid += 0.16 * contrast * rim * film.lung(side)
    return [where]


def consolidation(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Draw a lobe without air, ended by its fissure, with the bronchi in it still black."""
    side, chest = film.chest.sicker, film.chest
    fissure = chest.apex + film.random.uniform(0.46, 0.54) * (chest.dome(side) - chest.apex)
    tilt, height = film.random.normal(0, 0.02), 0.21 * extent
    upper = film.random.random() < 0.5
    far = fissure - height if upper else fissure + height
    lobe = np.array([(0.0, fissure), (side * 0.40, fissure + tilt), (side * 0.40, far), (0.0, far)])
    where = film.canvas.fill(lobe, softness=0.006) * film.lung(side)
    root = np.array([side * 0.09, chest.apex + 0.29])
    ends = [chest.place(side, 0.75, (0.25 if upper else 0.6) + 0.12 * number) for number in range(3)]
    bronchi = film.canvas.strokes(np.array([[root, end] for end in ends]), 0.007, 0.002)
    _opacify(film, where * (1 - 0.6 * bronchi), 0.9 * contrast)
    return [where]


def edema(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Bat's wings: haze round both hila that spares the edges, and septal (Kerley B) lines at the base."""
    chest, canvas = film.chest, film.canvas
    wings = [ellipse((side * 0.15, chest.apex + 0.31), (0.10 * extent, 0.17 * extent), -side * 12) for side in SIDES]
    where = film.haze(*wings, softness=0.03) * film.lungs
    _opacify(film, where * (0.4 + 0.6 * _clouds(film, 0.035)), 0.75 * contrast)
    lines = []
    for side in SIDES:
        for y in chest.dome(side) - np.arange(0.0, 0.13, 0.016):
            edge = chest.wall(side, y)
            lines.append([(edge - side * 0.045, y), (edge - side * 0.006, y + 0.003)])
    film.solid += 0.10 * contrast * canvas.strokes(np.array(lines), 0.004, 0.0015) * film.lungs
    return [where]


def emphysema(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Lungs too large and too black, few vessels, a flat diaphragm and a narrow heart."""
    film.air += 0.28 * contrast * film.lungs * (1 - 0.9 * film.centre)
    film.vessels *= 1 - 0.6 * min(contrast, 1.0)
    return [film.lungs]


def fibrosis(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Draw a net of lines and small rings (honeycombing) along the bases of small lungs."""
    chest, random = film.chest, film.random
    rings, zones = [], []
    for side in SIDES:
        for _ in range(round(110 * extent)):
            centre = chest.place(side, random.uniform(0.25, 1.0), random.beta(4, 1.6) * 1.05)
            ring = ellipse(centre, random.uniform(0.005, 0.013, 2), random.uniform(0, 180), 7)
            rings.append(np.concatenate([ring, ring[:1]]))
        zones.append(ellipse(chest.place(side, 0.65, 0.8), (0.12 * extent, 0.16 * extent)))
    net = film.canvas.strokes(np.array(rings), 0.0035, 0.001)
    film.solid += 0.14 * contrast * net * film.lungs * (1 - 0.8 * film.centre)
    where = film.canvas.fill(*zones, softness=0.01) * film.lungs
    _opacify(film, where, 0.15 * contrast)
    return [where]


def pleural_thickening(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Draw a bright, uneven band along the wall and over the apex."""
    side = _side(film)
    band = film.outer_band(side, extent * film.random.uniform(0.022, 0.032))
    where = band * film.canvas.soften(np.clip(0.8 + 0.5 * film.canvas.noise(film.random, 0.08), 0, 1), 0.01)
    _opacify(film, where, 0.9 * contrast)
    film.solid += 0.07 * contrast * where
    return [where]


def hernia(film: Film, extent: float, contrast: float) -> list[np.ndarray]:
    """Draw a hiatal hernia: a round stomach behind the heart, with a level of air over fluid."""
    radius = extent * film.random.uniform(0.075, 0.10)
    centre = np.array([film.random.uniform(0.01, 0.05), max(film.chest.domes) - 0.02 - 0.6 * radius])
    where = film.canvas.fill(ellipse(centre, (radius, radius)), softness=0.003)
    angles = np.linspace(np.pi, 2 * np.pi, 20)
    bubble = centre + 0.82 * radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    film.solid += contrast * (0.09 * where - 0.30 * film.canvas.fill(bubble, softness=0.003))
    _opacify(film, where, 0.8 * contrast)
    return [where]


SIGNS: dict[str, Sign] = {
    "Atelectasis": atelectasis,
    "Cardiomegaly": cardiomegaly,
    "Effusion": effusion,
    "Infiltration": infiltration,
    "Mass": mass,
    "Nodule": nodule,
    "Pneumonia": pneumonia,
    "Pneumothorax": pneumothorax,
    "Consolidation": consolidation,
    "Edema": edema,
    "Emphysema": emphysema,
    "Fibrosis": fibrosis,
    "Pleural_Thickening": pleural_thickening,
    "Hernia": hernia,
}
