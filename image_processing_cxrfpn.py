"""A radiograph of any kind -> the normalised tensor that the network takes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ImagesKwargs

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .configuration_cxrfpn import IMAGE_MEAN, IMAGE_STD
    from .pixels_cxrfpn import MAX_PIXELS
    from .preparation_cxrfpn import Preparation
    from .radiograph_cxrfpn import Radiograph
except ImportError:
    from configuration_cxrfpn import IMAGE_MEAN, IMAGE_STD
    from pixels_cxrfpn import MAX_PIXELS
    from preparation_cxrfpn import Preparation
    from radiograph_cxrfpn import Radiograph


class CxrFpnImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
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

    @property
    def preparation(self) -> Preparation:
        """What this processor does to a radiograph, without torch."""
        return Preparation.from_settings(self.to_dict())

    def read(self, image: object, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Radiograph:
        """Read a radiograph with as many pixels as this processor needs; see `Preparation.read`."""
        return self.preparation.read(image, name, max_pixels)

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> list[object]:
        """One image, a list of them, or an array or tensor with a batch dimension -> a list."""
        if isinstance(images, list | tuple):
            return list(images)
        return list(images) if getattr(images, "ndim", 0) == 4 else [images]

    def process_image(self, image: object, **settings: object) -> Tensor:
        """Turn anything that `read` reads into [1,H,W] uint8 pixels of the central crop, resized if `do_resize`.

        Args:
            image: a radiograph.
            settings: this processor's, with what a call changes of them.

        Raises:
            RadiographError: in one line, where the radiograph cannot be read.
        """
        preparation = Preparation.from_settings({**self.to_dict(), **settings})
        return torch.from_numpy(preparation.crop(preparation.read(image).pixels))[None]

    def _preprocess(
        self,
        images: list[Tensor],
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: tuple[float, ...],
        image_std: tuple[float, ...],
        return_tensors: str | None = None,
        device: torch.device | str | None = None,
        **others: object,
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
        """Undo the geometry for a finding map; see `Preparation.place_map`."""
        return self.preparation.place_map(finding_map, height, width)


CxrFpnImageProcessor.register_for_auto_class("AutoImageProcessor")
