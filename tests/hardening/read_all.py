"""Reads files named on standard input through the image processor; answers each with one line of JSON.

In a process of its own, so that a decoder that hangs or crashes is seen from outside, and under a limit of memory.
"""

import json
import resource
import sys
from pathlib import Path

import gdcm  # noqa: F401 - loaded before the first file is timed, as is pydicom
import pydicom.pixels  # noqa: F401
import torch

from image_processing_cxrfpn import CxrFpnImageProcessor
from pixels_cxrfpn import RadiographError

# 100 megapixels of 4 bytes, their twin as float64 and what libraries take themselves.
MOST_BYTES = 4 * 2**30


def main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    torch.set_num_threads(1)
    processor = CxrFpnImageProcessor(size={"height": 64, "width": 64})
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        path = Path(json.loads(line))
        try:
            pixel_values = processor(path)["pixel_values"]
            answer = {"shape": list(pixel_values.shape), "is_finite": bool(pixel_values.isfinite().all())}
        except RadiographError as error:
            answer = {"refused": str(error)}
        except Exception as error:  # everything else is what the tests look for
            answer = {"broke": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
