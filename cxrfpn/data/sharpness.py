"""How many pixels an image's file had: what was shrunk before it came to us shows less than the network can see."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

SIDE_COLUMN = "source_side"
# Files whose shorter side has fewer pixels count as blurred.
SHARP_SIDE = 200


def source_side(image: bytes, pixels: np.ndarray) -> int:
    """Return the shorter side of a radiograph's file, in pixels.

    Args:
        image: the encoded file.
        pixels: [H,W] as decoded, which may be at the reduced scale of a JPEG.
    """
    try:
        with Image.open(io.BytesIO(image)) as header:
            return min(header.size)
    except UnidentifiedImageError:  # DICOM, which is never read at reduced scale
        return min(pixels.shape)
