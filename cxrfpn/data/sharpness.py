"""How many pixels an image's file had: what was shrunk before it came to us shows less than the network can see."""

import io
import re

import numpy as np
from PIL import Image, UnidentifiedImageError

from radiograph_cxrfpn import PREPARED, comment_of

SIDE_COLUMN = "source_side"
# Files whose shorter side has fewer pixels count as blurred where figures are reported.
SHARP_SIDE = 300
_PREPARED_FROM = re.compile(rf"{PREPARED} from (\d+) px")


def source_side(image: bytes, pixels: np.ndarray) -> int:
    """Return the shorter side of a radiograph's file in pixels; of a prepared one, that of the file it was made from.

    Args:
        image: the encoded file.
        pixels: [H,W] as decoded, which may be at the reduced scale of a JPEG.
    """
    try:
        with Image.open(io.BytesIO(image)) as header:
            prepared = _PREPARED_FROM.fullmatch(comment_of(header))
            return int(prepared[1]) if prepared else min(header.size)
    except UnidentifiedImageError:  # DICOM, which is never read at reduced scale
        return min(pixels.shape)
