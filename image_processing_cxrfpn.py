"""A radiograph of any kind -> the normalised tensor that the network takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .configuration_cxrfpn import IMAGE_MEAN, IMAGE_STD
    from .pixels_cxrfpn import MAX_PIXELS
    from .radiograph_cxrfpn import PIXELS_KEPT, Radiograph, read_radiograph, resize_to_square
except ImportError:
    from configuration_cxrfpn import IMAGE_MEAN, IMAGE_STD
    from pixels_cxrfpn import MAX_PIXELS
    from radiograph_cxrfpn import PIXELS_KEPT, Radiograph, read_radiograph, resize_to_square


class CxrFpnImageProcessorKwargs(ImagesKwargs, total=False):
    """What this processor takes besides transformers' own settings.

    crop_fraction: the share of each side that the centre crop keeps (the report's 0.9).
    prepared_size: the side in pixels that every radiograph is resized to first, as it was for training; None resizes
        the crop straight to `size`.
    """

    crop_fraction: float
    prepared_size: int | None


class CxrFpnImageProcessor(TorchvisionBackend):
    """Reads, crops the centre, resizes and normalises radiographs.

    The geometry is the report's for validation and test: the central 90 % of each side, resized to a square (NIH's
    own images were made square in the same way), scaled to 0..1, then ImageNet's mean and standard deviation. A network
    that was trained on radiographs that prepare.py shrank gets them shrunk in the same way, `prepared_size` pixels a
    side: sharper ones would score differently from those that its thresholds were fitted on.
    """

    valid_kwargs = CxrFpnImageProcessorKwargs
    size = {"height": 224, "width": 224}
    crop_fraction = 0.9
    prepared_size = None
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGE_MEAN
    image_std = IMAGE_STD
    do_resize = True
    do_rescale = True
    do_normalize = True

    def read(
        self,
        image: Any,
        name: str | None = None,
        size: SizeDict | None = None,
        crop_fraction: float | None = None,
        prepared_size: int | None = None,
        do_resize: bool | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Radiograph:
        """Read a radiograph with as many pixels as this processor needs; a `Radiograph` is given back as it is.

        Args:
            image: anything that `read_radiograph` reads, or `{"bytes": ..., "path": ...}` as `datasets` gives an image
                that is not decoded.
            name: what errors call it.
            size, crop_fraction, prepared_size, do_resize: as of the processor, unless given.
            max_pixels: as for `read_radiograph`.
        """
        if isinstance(image, Mapping) and image.keys() <= {"bytes", "path"}:
            name = name or image.get("path")
            image = image.get("path") if image.get("bytes") is None else image["bytes"]
        if not (self.do_resize if do_resize is None else do_resize):
            return read_radiograph(image, name, max_pixels=max_pixels)
        size, prepared_size = size or self.size, prepared_size or self.prepared_size
        needed = prepared_size or round(max(size.height, size.width) / (crop_fraction or self.crop_fraction))
        return read_radiograph(image, name, PIXELS_KEPT * needed, max_pixels)

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> list[Any]:
        """One image, a list of them, or an array or tensor with a batch dimension -> a list."""
        if isinstance(images, list | tuple):
            return list(images)
        return list(images) if getattr(images, "ndim", 0) == 4 else [images]

    def process_image(
        self,
        image: Any,
        size: SizeDict,
        crop_fraction: float,
        do_resize: bool,
        resample: int,
        prepared_size: int | None = None,
        **_: Any,
    ) -> Tensor:
        """Turn anything that `read` reads into [1,H,W] uint8 pixels of the central crop, resized if `do_resize`.

        Raises:
            RadiographError: in one line, where the radiograph cannot be read.
        """
        pixels = self.read(image, None, size, crop_fraction, prepared_size, do_resize).pixels
        if do_resize:
            if prepared_size is not None:
                pixels = resize_to_square(pixels, prepared_size)
            cropped = crop_and_resize(pixels, (size.height, size.width), crop_fraction, resample)
        else:
            left, top, right, bottom = (round(edge) for edge in _crop_box(*pixels.shape, crop_fraction))
            cropped = pixels[top:bottom, left:right].copy()
        return torch.from_numpy(cropped)[None]

    def _preprocess(
        self,
        images: list[Tensor],
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: tuple[float, ...],
        image_std: tuple[float, ...],
        return_tensors: Any = None,
        device: Any = None,
        **others: Any,
    ) -> BatchFeature:
        if refused := [name for name in ("do_center_crop", "do_pad") if others.get(name)]:
            raise ValueError(f"this processor has no {refused[0]}: crop_fraction says what the centre crop keeps")
        if len({image.shape for image in images}) > 1:
            raise ValueError("with do_resize=False, images of several sizes make no batch: process them one at a time")
        batch = torch.stack(images).to(device).expand(-1, 3, -1, -1)
        pixel_values = self.rescale_and_normalize(
            batch, do_rescale, rescale_factor, do_normalize, image_mean, image_std
        )
        return BatchFeature({"pixel_values": pixel_values}, tensor_type=return_tensors or "pt")

    def place_map(self, finding_map: np.ndarray, height: int, width: int) -> np.ndarray:
        """Undo the geometry for a finding map: [h,w] over the processed crop -> [height, width] over the radiograph.

        What the crop left out was never seen and is 0.
        """
        left, top, right, bottom = (round(edge) for edge in _crop_box(height, width, self.crop_fraction))
        seen = Image.fromarray(finding_map.astype(np.float32)).resize(
            (right - left, bottom - top), Image.Resampling.BICUBIC
        )
        placed = np.zeros((height, width), np.float32)
        placed[top:bottom, left:right] = np.asarray(seen).clip(0, 1)
        return placed


def crop_and_resize(
    pixels: np.ndarray, size: tuple[int, int], crop_fraction: float, resample: int = PILImageResampling.BILINEAR
) -> np.ndarray:
    """Cut out the central part of [H,W] uint8 pixels and resize it, with antialiasing, to size (height, width)."""
    box = _crop_box(*pixels.shape, crop_fraction)
    resized = Image.fromarray(pixels).resize((size[1], size[0]), resample, box=box)
    return np.array(resized)


def _crop_box(height: int, width: int, crop_fraction: float) -> tuple[float, float, float, float]:
    left, top = width * (1 - crop_fraction) / 2, height * (1 - crop_fraction) / 2
    return left, top, width - left, height - top


CxrFpnImageProcessor.register_for_auto_class("AutoImageProcessor")
