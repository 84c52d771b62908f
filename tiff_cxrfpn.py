"""What Pillow leaves out of a TIFF: which end of the values is black, and whether they are signed."""

import struct

import numpy as np
from PIL import Image

PHOTOMETRIC, SAMPLE_FORMAT = 262, 339
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1
UNSIGNED, SIGNED = 1, 2


def with_black_zero(data: bytes) -> tuple[bytes, bool]:
    """Mark 0 as black in a TIFF whose 0 is white, which Pillow knows at few depths only.

    Returns:
        the file, and whether it was changed: its picture is then to be inverted.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or data[2:4] not in (b"*\0", b"\0*"):
        return data, False
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", data, place)
            if tag == PHOTOMETRIC and kind == 3:  # SHORT
                if value != WHITE_IS_ZERO:
                    break
                changed = bytearray(data)
                struct.pack_into(f"{order}H", changed, place + 8, BLACK_IS_ZERO)
                return bytes(changed), True
    except struct.error:  # cut off: the decoder says so
        pass
    return data, False


def is_white_zero(image: Image.Image) -> bool:
    """Return whether 0 is white in a TIFF that Pillow opened, and that Pillow does not invert itself."""
    return image.mode not in ("1", "L") and _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO


def true_range(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """Return Pillow's values [H,W] signed or not, as the file says: its 8 bits never are, its 32 bits always."""
    sample_format = _tag(image, SAMPLE_FORMAT)
    if values.dtype == np.uint8 and sample_format == SIGNED:
        return values.view(np.int8)
    if values.dtype == np.int32 and sample_format in (None, UNSIGNED) and image.format == "TIFF":
        return values.view(np.uint32)
    return values


def _tag(image: Image.Image, number: int) -> int | None:
    value = getattr(image, "tag_v2", {}).get(number)
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else None
