"""A worker that decodes as the real one does, but obeys files that order it to crash, to hang or to fill the memory."""

import ctypes
import time
from typing import Any

import numpy as np

from decoding_cxrfpn import serve
from radiograph_cxrfpn import decode_fields

CRASH, HANG, SPIN, FILL = b"please crash", b"please hang", b"please spin", b"please fill"


def obey(data: bytes, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    if data.endswith(CRASH):
        ctypes.string_at(0)  # a segmentation fault
    if data.endswith(HANG):
        time.sleep(600)
    while data.endswith(SPIN):
        pass
    if data.endswith(FILL):
        np.ones(options["max_pixels"] * 100)
    return decode_fields(data, **options)


if __name__ == "__main__":
    serve(obey)
