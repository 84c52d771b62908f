"""A finding map laid over its radiograph, for people to look at."""

import numpy as np
from PIL import Image

# Black through red and yellow to white (the physics of a glowing body): ordered by brightness, so it reads in grey and
# to colour-blind eyes, and its low end vanishes on the radiograph.
GLOW = np.array([[0, 0, 0], [120, 0, 10], [225, 60, 0], [255, 170, 20], [255, 245, 190]], np.float32)


def overlay(pixels: np.ndarray, placed_map: np.ndarray, opacity: float = 0.6) -> Image.Image:
    """Blend a finding map over a radiograph; where the map is 0 the radiograph is untouched.

    Args:
        pixels: [H,W] uint8.
        placed_map: [H,W] of 0..1, as `CxrFpnImageProcessor.place_map` gives it.
        opacity: 0..1, of the map at its peak.

    Returns:
        an RGB image of the same size.
    """
    steps = np.linspace(0, 1, len(GLOW))
    table = np.stack([np.interp(np.arange(256) / 255, steps, GLOW[:, channel]) for channel in range(3)], axis=1)
    colour = table[np.rint(placed_map * 255).astype(np.uint8)]
    share = (opacity * placed_map)[..., None]
    blended = pixels[..., None] * (1 - share) + colour * share
    return Image.fromarray(np.rint(blended).astype(np.uint8), "RGB")
