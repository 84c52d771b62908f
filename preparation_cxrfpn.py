"""How a radiograph becomes the network's pixels, in numpy alone; the processor in torch runs the same code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .pixels_cxrfpn import MAX_PIXELS
    from .radiograph_cxrfpn import PIXELS_KEPT, Radiograph, read_radiograph, resize_to_square
except ImportError:
    from pixels_cxrfpn import MAX_PIXELS
    from radiograph_cxrfpn import PIXELS_KEPT, Radiograph, read_radiograph, resize_to_square


@dataclass(frozen=True)
class Preparation:
    """What preprocessor_config.json says: size, crop and normalisation.

    Args:
        height, width: of the network's input, in pixels.
        crop_fraction: the share of each side that the centre crop keeps, 0 to 1.
        prepared_size: the side in pixels that every radiograph is resized to first; None for none.
        resample: Pillow's filter.
        do_resize: False keeps the crop at its own size.
        scale, mean, std: a grey level g of 0..255 becomes (g * scale - mean) / std in each of the 3 channels.
    """

    height: int
    width: int
    crop_fraction: float
    prepared_size: int | None
    resample: int
    do_resize: bool
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Preparation":
        """Read the settings of the image processor, as its configuration file has them."""
        size = settings["size"]
        height, width = (size[key] if isinstance(size, Mapping) else getattr(size, key) for key in ("height", "width"))
        normalises = settings["do_normalize"]
        return cls(
            height=height,
            width=width,
            crop_fraction=settings["crop_fraction"],
            prepared_size=settings.get("prepared_size"),
            resample=settings["resample"],
            do_resize=settings["do_resize"],
            scale=settings["rescale_factor"] if settings["do_rescale"] else 1.0,
            mean=tuple(settings["image_mean"]) if normalises else (0.0,) * 3,
            std=tuple(settings["image_std"]) if normalises else (1.0,) * 3,
        )

    def read(self, image: object, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Radiograph:
        """Read a radiograph with as many pixels as are needed; a `Radiograph` is given back as it is.

        Args:
            image: anything that `read_radiograph` reads, or `{"bytes": ..., "path": ...}` as `datasets` gives an image
                that is not decoded.
            name: what errors call it.
            max_pixels: as for `read_radiograph`.
        """
        if isinstance(image, Mapping) and image.keys() <= {"bytes", "path"}:
            name = name or image.get("path")
            image = image.get("path") if image.get("bytes") is None else image["bytes"]
        if not self.do_resize:
            return read_radiograph(image, name, max_pixels=max_pixels)
        needed = self.prepared_size or round(max(self.height, self.width) / self.crop_fraction)
        return read_radiograph(image, name, PIXELS_KEPT * needed, max_pixels)

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """Cut the centre out of [H,W] uint8 pixels and resize it to [height, width] uint8."""
        if not self.do_resize:
            left, top, right, bottom = (
                round(edge) for edge in crop_box(pixels.shape[0], pixels.shape[1], self.crop_fraction)
            )
            return pixels[top:bottom, left:right].copy()
        if self.prepared_size is not None:
            pixels = resize_to_square(pixels, self.prepared_size)
        return crop_and_resize(pixels, (self.height, self.width), self.crop_fraction, self.resample)

    def normalise(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Turn crops [H,W] uint8 of one size into pixel_values [B,3,H,W] float32."""
        grey = np.stack(crops)
        return np.stack([np.take(channel, grey) for channel in self._table], axis=1)

    @cached_property
    def _table(self) -> np.ndarray:
        """What each grey level becomes in each channel: [3,256] float32."""
        mean, std = (np.asarray(values, np.float64)[:, None] for values in (self.mean, self.std))
        return ((np.arange(256) * self.scale - mean) / std).astype(np.float32)

    def place_map(self, finding_map: np.ndarray, height: int, width: int) -> np.ndarray:
        """Undo the geometry for a finding map: [h,w] over the processed crop -> [height, width] over the radiograph.

        What the crop left out was never seen and is 0.
        """
        left, top, right, bottom = (round(edge) for edge in crop_box(height, width, self.crop_fraction))
        seen = Image.fromarray(finding_map.astype(np.float32)).resize(
            (right - left, bottom - top), Image.Resampling.BICUBIC
        )
        placed = np.zeros((height, width), np.float32)
        placed[top:bottom, left:right] = np.asarray(seen).clip(0, 1)
        return placed


def crop_and_resize(
    pixels: np.ndarray, size: tuple[int, int], crop_fraction: float, resample: int = Image.Resampling.BILINEAR
) -> np.ndarray:
    """Cut out the central part of [H,W] uint8 pixels and resize it, with antialiasing, to size (height, width)."""
    height, width = pixels.shape
    box = crop_box(height, width, crop_fraction)
    resized = Image.fromarray(pixels).resize((size[1], size[0]), resample, box=box)
    return np.array(resized)


def crop_box(height: int, width: int, crop_fraction: float) -> tuple[float, float, float, float]:
    """Return the central crop's left, top, right and bottom edge, in pixels."""
    left, top = width * (1 - crop_fraction) / 2, height * (1 - crop_fraction) / 2
    return left, top, width - left, height - top
