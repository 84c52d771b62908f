"""The report's training augmentation, every radiograph with its own parameters: drawn once, rendered in two ways.

Compression as JPEG comes first, always on the CPU. Then, on a CPU OpenCV renders image by image, on any other device
torch renders the whole batch. Both do, in this order: degrade (to 128 pixels and back); shrink by area, where the
result is much smaller; one bilinear warp that crops, rotates, shifts, mirrors and resizes; blur; exposure and
normalisation.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from image_processing_cxrfpn import CxrFpnImageProcessor
from preparation_cxrfpn import crop_and_resize

DEGRADED_SIDE = 128
# Draws an image, a multiple of 4 because the generator makes 4 at a time.
_DRAWS = 12


@dataclass(frozen=True)
class Augmentation:
    """The report's values; `mirror` and those without effect by default are ours.

    crop: the side that a random crop keeps, 0 to 1. rotation_degrees, translation (a share of the side), brightness
    (added, of 0..1) and contrast (factor 1 +- this, about mid grey): drawn evenly from -x to x. mirror, blur, degrade:
    probabilities. A mirrored chest has its heart on the other side. `degrade` brings a sharp image down to 128 pixels
    and back: where sharp and blurred sources differ in their findings, blur would otherwise tell them apart. `jpeg`
    is the probability of a compression as JPEG, with a quality drawn evenly from `jpeg_quality`: where sources differ
    in how they were compressed, its traces would tell them apart as well.
    """

    crop: float = 0.9
    rotation_degrees: float = 7.0
    translation: float = 0.06
    mirror: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    blur: float = 0.4
    blur_sigma: tuple[float, float] = (0.2, 1.5)
    degrade: float = 0.0
    jpeg: float = 0.0
    jpeg_quality: tuple[int, int] = (50, 95)


@dataclass(frozen=True)
class Parameters:
    """What is done to each of B images, as float32 arrays [B].

    warp is [B,2,3], from places in the result to places in the image, both in -1..1 from edge to edge; gain and offset
    act on grey levels of 0..1; sigma is 0 where there is no blur, quality (1 to 100) where there is no compression.
    """

    warp: np.ndarray
    quality: np.ndarray
    degrade: np.ndarray
    sigma: np.ndarray
    gain: np.ndarray
    offset: np.ndarray

    def __getitem__(self, index: slice) -> "Parameters":
        return Parameters(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def draw_parameters(settings: Augmentation, count: int, seed: int, epoch: int, first: int) -> Parameters:
    """Draw the parameters of the `count` images from place `first` on in the order of an epoch.

    A place in an epoch has one set of parameters, on any rank, device or slice (the generator is
    Philox, which is indexed by a counter: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011).
    """
    philox = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    philox.advance(first * _DRAWS // 4)
    draws = np.random.Generator(philox).random((count, _DRAWS)).T
    even = 2 * draws - 1
    angle = np.deg2rad(settings.rotation_degrees) * even[0]
    flip = np.where(draws[1] < settings.mirror, -1.0, 1.0)
    cosine, sine = settings.crop * np.cos(angle), settings.crop * np.sin(angle)
    slack = 1 - settings.crop
    shift_x = slack * even[2] + 2 * settings.translation * even[3]
    shift_y = slack * even[4] + 2 * settings.translation * even[5]
    low, high = settings.blur_sigma
    worst, best = settings.jpeg_quality
    compressed = draws[11] < settings.jpeg
    values = {
        "warp": np.stack([cosine * flip, -sine, shift_x, sine * flip, cosine, shift_y], axis=1).reshape(-1, 2, 3),
        "quality": np.where(compressed, worst + (best - worst) * draws[11] / max(settings.jpeg, 1e-9), 0).round(),
        "degrade": draws[6] < settings.degrade,
        "sigma": np.where(draws[7] < settings.blur, low + (high - low) * draws[8], 0),
        "gain": 1 + settings.contrast * even[9],
        "offset": settings.brightness * even[10],
    }
    return Parameters(**{name: value.astype(np.float32) for name, value in values.items()})


def compress(pixels: Tensor, parameters: Parameters) -> Tensor:
    """Compress some images of a batch [B,S,S] uint8 on the CPU as JPEG, and decode them again."""
    if not parameters.quality.any():
        return pixels
    result = pixels.clone()
    for image, quality in zip(result.numpy(), parameters.quality.tolist(), strict=True):
        if quality:
            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
            image[:] = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    return result


def augment(pixels: Tensor, parameters: Parameters, size: int) -> Tensor:
    """Render a batch on the device where it lies.

    Args:
        pixels: [B,S,S] uint8.
        parameters: one set an image.
        size: side of the result, in pixels.

    Returns:
        [B,3,size,size] float32, normalised as the image processor does it.
    """
    render = augment_with_opencv if pixels.device.type == "cpu" else augment_with_torch
    return render(pixels, parameters, size)


def evaluation_view(pixels: Tensor, size: int) -> Tensor:
    """View prepared pixels [B,S,S] uint8 as the image processor does: centre crop, resized -> [B,3,size,size]."""
    crop = CxrFpnImageProcessor.crop_fraction
    result = torch.empty(len(pixels), 3, size, size)
    for image, planes in zip(pixels.numpy(), result.numpy(), strict=True):
        _normalise(crop_and_resize(image, (size, size), crop), 1.0, 0.0, planes)
    return result


def augment_with_opencv(pixels: Tensor, parameters: Parameters, size: int) -> Tensor:
    """`augment` on a CPU, image by image: one warp and one table of 256 grey levels each."""
    result = torch.empty(len(pixels), 3, size, size)
    side = pixels.shape[-1]
    shrunk = _shrunk_side(side, size, parameters)
    to_pixels, from_places = _pixel_frames(shrunk or side, size)
    for index, (image, planes) in enumerate(zip(pixels.numpy(), result.numpy(), strict=True)):
        if parameters.degrade[index] and side > DEGRADED_SIDE:
            small = cv2.resize(image, (DEGRADED_SIDE, DEGRADED_SIDE), interpolation=cv2.INTER_AREA)
            image = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)
        if shrunk:
            image = cv2.resize(image, (shrunk, shrunk), interpolation=cv2.INTER_AREA)
        warp = to_pixels @ np.vstack([parameters.warp[index], (0, 0, 1)]) @ from_places
        image = cv2.warpAffine(image, warp[:2], (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        if parameters.sigma[index] > 0:
            image = cv2.GaussianBlur(image, (3, 3), float(parameters.sigma[index]), borderType=cv2.BORDER_REFLECT_101)
        _normalise(image, parameters.gain[index], parameters.offset[index], planes)
    return result


def augment_with_torch(pixels: Tensor, parameters: Parameters, size: int) -> Tensor:
    """`augment` on any device, the whole batch at once."""
    values = {field.name: getattr(parameters, field.name) for field in fields(parameters)}
    on_device = {name: torch.from_numpy(value).to(pixels.device) for name, value in values.items()}
    image, side = pixels[:, None].float() / 255, pixels.shape[-1]
    if side > DEGRADED_SIDE and parameters.degrade.any():
        small = _shrink(image, DEGRADED_SIDE)
        degraded = F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
        image = torch.where(on_device["degrade"].bool().view(-1, 1, 1, 1), degraded, image)
    if shrunk := _shrunk_side(side, size, parameters):
        image = _shrink(image, shrunk)
    grid = F.affine_grid(on_device["warp"], [len(image), 1, size, size], align_corners=False)
    image = _blur(F.grid_sample(image, grid, mode="bilinear", align_corners=False), on_device["sigma"])
    gain, offset = (on_device[name].view(-1, 1, 1, 1) for name in ("gain", "offset"))
    image = ((image - 0.5) * gain + 0.5 + offset).clamp(0, 1)
    mean, std = (image.new_tensor(values).view(3, 1, 1) for values in _normalisation())
    return (image - mean) / std


def _shrunk_side(side: int, size: int, parameters: Parameters) -> int | None:
    """Return the side to shrink to first, where the warp alone would skip pixels and alias."""
    crop = float(np.hypot(parameters.warp[0, 0, 0], parameters.warp[0, 1, 0]))
    return round(size / crop) if side * crop > 1.25 * size else None


def _pixel_frames(side: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices from -1..1 to the pixels of an image of `side`, and from the pixels of a result of `size` to -1..1."""
    to_pixels = np.array([[side / 2, 0, (side - 1) / 2], [0, side / 2, (side - 1) / 2], [0, 0, 1]])
    from_places = np.array([[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1]])
    return to_pixels, from_places


def _shrink(image: Tensor, side: int) -> Tensor:
    """Resize [B,1,S,S] by the exact area that each new pixel covers, as OpenCV's INTER_AREA does."""
    edges = torch.linspace(0, image.shape[-1], side + 1, dtype=torch.float64)
    pixel = torch.arange(image.shape[-1], dtype=torch.float64)
    covered = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    weights = (covered.clamp_min(0) * side / image.shape[-1]).to(image)
    return weights @ image @ weights.T


def _blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of [B,1,S,S] with a kernel of 3, one sigma an image; 0 leaves it as it is."""
    edge = torch.where(sigma > 0, torch.exp(-0.5 / sigma.clamp_min(1e-6) ** 2), 0.0)
    line = torch.stack([edge, torch.ones_like(edge), edge], dim=1) / (1 + 2 * edge)[:, None]
    kernel = line[:, :, None] * line[:, None, :]
    padded = F.pad(image, (1, 1, 1, 1), mode="reflect").transpose(0, 1)
    return F.conv2d(padded, kernel[:, None], groups=len(image)).transpose(0, 1)


def _normalisation() -> tuple[tuple[float, ...], tuple[float, ...]]:
    return CxrFpnImageProcessor.image_mean, CxrFpnImageProcessor.image_std


def _normalise(image: np.ndarray, gain: float, offset: float, planes: np.ndarray) -> None:
    """Exposure and normalisation of [H,W] uint8 into planes [3,H,W] float32, by a table of the 256 grey levels."""
    levels = np.clip((np.arange(256, dtype=np.float32) / 255 - 0.5) * gain + 0.5 + offset, 0, 1)
    for plane, mean, std in zip(planes, *_normalisation(), strict=True):
        cv2.LUT(image, ((levels - mean) / std).astype(np.float32), dst=plane)
