"""Augmentation: both renderers do the same, and what torchvision does; evaluation sees what inference sees."""

import io
from dataclasses import fields

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from cxrfpn.data.augment import (
    Augmentation,
    augment,
    augment_with_opencv,
    augment_with_torch,
    compress,
    draw_parameters,
    evaluation_view,
)
from image_processing_cxrfpn import CxrFpnImageProcessor
from radiograph_cxrfpn import Radiograph

NOTHING = Augmentation(crop=1.0, rotation_degrees=0.0, translation=0.0, blur=0.0)
SETTINGS = {
    "report": Augmentation(),
    "all": Augmentation(mirror=0.5, brightness=0.1, contrast=0.2, degrade=0.5),
    "strong": Augmentation(crop=0.6, rotation_degrees=40, translation=0.2, blur=1.0),
    "nothing": NOTHING,
}


@pytest.fixture(scope="module")
def pixels(drawing) -> Tensor:
    """Eight drawings [8,256,256] uint8, each with grain of its own."""
    smooth = cv2.resize(drawing, (256, 256), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    grain = np.random.default_rng(0).normal(0, 10, (8, 256, 256))
    return torch.from_numpy(np.clip(smooth + grain, 0, 255).round().astype(np.uint8))


def _grey(normalised: Tensor) -> Tensor:
    """[B,3,H,W] normalised -> [B,H,W] in grey levels of 0..255; the three channels must say the same."""
    constants = (CxrFpnImageProcessor.image_mean, CxrFpnImageProcessor.image_std)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in constants)
    grey = (normalised * std + mean) * 255
    assert grey.amax(dim=1).sub(grey.amin(dim=1)).max() < 1e-3
    return grey[:, 0]


@pytest.mark.parametrize("size", [224, 112, 320])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_opencv_and_torch_render_the_same(pixels, settings, size):
    parameters = draw_parameters(settings, len(pixels), seed=1, epoch=0, first=0)
    one, other = (_grey(render(pixels, parameters, size)) for render in (augment_with_opencv, augment_with_torch))
    assert one.shape == (8, size, size)
    difference = (one - other).abs()
    assert difference.mean() < 0.75 and difference.quantile(0.999) < 4, (difference.mean(), difference.max())


def test_the_cpu_takes_opencv(pixels):
    parameters = draw_parameters(Augmentation(), len(pixels), seed=0, epoch=0, first=0)
    assert torch.equal(augment(pixels, parameters, 224), augment_with_opencv(pixels, parameters, 224))


@pytest.mark.parametrize("render", [augment_with_opencv, augment_with_torch])
class TestRenderer:
    """Each effect alone, against torchvision's."""

    def test_nothing_leaves_the_pixels(self, render, pixels):
        drawn = _grey(render(pixels, draw_parameters(NOTHING, 8, seed=0, epoch=0, first=0), 256))
        assert (drawn - pixels.float()).abs().max() < 1e-3

    def test_crop_and_rotation_in_one_warp(self, render, pixels):
        settings = Augmentation(crop=0.9, rotation_degrees=30, translation=0, blur=0)
        parameters = draw_parameters(settings, 8, seed=0, epoch=0, first=0)
        parameters.warp[:, :, 2] = 0  # the crop's place: torchvision's affine magnifies about the centre
        drawn = _grey(render(pixels, parameters, 256))
        for index in range(8):
            angle = float(np.rad2deg(np.arctan2(parameters.warp[index, 1, 0], parameters.warp[index, 0, 0])))
            assert abs(angle) <= 30
            expected = reference.affine(
                pixels[index][None].float(), angle=-angle, translate=[0, 0], scale=1 / 0.9, shear=[0.0, 0.0],
                interpolation=InterpolationMode.BILINEAR,
            )[0]  # fmt: skip
            inside = (slice(8, -8), slice(8, -8))
            assert (drawn[index][inside] - expected[inside]).abs().mean() < 0.75, angle

    def test_shift(self, render, pixels):
        parameters = draw_parameters(NOTHING, 8, seed=0, epoch=0, first=0)
        parameters.warp[:, 0, 2], parameters.warp[:, 1, 2] = 2 * 16 / 256, 2 * -24 / 256
        drawn = _grey(render(pixels, parameters, 256))
        assert (drawn[:, 24:, :240] - pixels[:, :232, 16:].float()).abs().max() < 0.6
        assert drawn[:, :23].max() < 1e-3 and drawn[:, :, 241:].max() < 1e-3  # what lay outside is black

    def test_mirror(self, render, pixels):
        settings = Augmentation(crop=1.0, rotation_degrees=0.0, translation=0.0, blur=0.0, mirror=1.0)
        drawn = _grey(render(pixels, draw_parameters(settings, 8, seed=0, epoch=0, first=0), 256))
        assert (drawn - pixels.flip(-1).float()).abs().max() < 0.6

    def test_blur(self, render, pixels):
        settings = Augmentation(crop=1.0, rotation_degrees=0.0, translation=0.0, blur=1.0)
        parameters = draw_parameters(settings, 8, seed=0, epoch=0, first=0)
        drawn = _grey(render(pixels, parameters, 256))
        for index, sigma in enumerate(parameters.sigma):
            assert 0.2 <= sigma <= 1.5
            expected = reference.gaussian_blur(pixels[index][None].float(), kernel_size=[3, 3], sigma=[float(sigma)])[0]
            assert (drawn[index] - expected).abs().max() < 2

    def test_exposure(self, render, pixels):
        settings = Augmentation(1.0, 0.0, 0.0, blur=0.0, brightness=0.2, contrast=0.4)
        parameters = draw_parameters(settings, 8, seed=0, epoch=0, first=0)
        drawn = _grey(render(pixels, parameters, 256))
        gain, offset = (torch.from_numpy(values).view(-1, 1, 1) for values in (parameters.gain, parameters.offset))
        expected = ((pixels / 255 - 0.5) * gain + 0.5 + offset).clamp(0, 1) * 255
        assert (drawn - expected).abs().max() < 0.01

    def test_degrading_makes_sharp_images_like_those_of_128_pixels(self, render, pixels):
        settings = Augmentation(1.0, 0.0, 0.0, blur=0.0, degrade=1.0)
        parameters = draw_parameters(settings, 8, seed=0, epoch=0, first=0)
        small = torch.nn.functional.avg_pool2d(pixels[:, None].float(), 2).round().to(torch.uint8)[:, 0]
        drawn = _grey(render(pixels, parameters, 256))
        expected = torch.nn.functional.interpolate(small[:, None].float(), scale_factor=2, mode="bilinear")[:, 0]
        assert (drawn - expected).abs().max() < 1.6
        assert (_grey(render(small, parameters, 128)) - small.float()).abs().max() < 1e-3


def test_compression_leaves_the_traces_of_its_quality(pixels):
    settings = Augmentation(jpeg=0.5, jpeg_quality=(40, 60))
    parameters = draw_parameters(settings, len(pixels), seed=0, epoch=0, first=0)
    compressed, original = compress(pixels, parameters), pixels.clone()
    assert 0 < np.count_nonzero(parameters.quality) < len(pixels)
    for index, quality in enumerate(parameters.quality):
        assert quality == 0 or 40 <= quality <= 60
        file = io.BytesIO()
        Image.fromarray(pixels[index].numpy()).save(file, "JPEG", quality=int(quality))  # Pillow as the reference
        expected = np.asarray(Image.open(file)) if quality else pixels[index].numpy()
        assert np.abs(compressed[index].numpy() - expected.astype(int)).max() <= 2
    assert torch.equal(pixels, original)  # the loader's own pixels stay as they are


def test_a_place_in_an_epoch_has_one_set_of_parameters():
    settings = SETTINGS["all"]
    whole = draw_parameters(settings, 50, seed=3, epoch=7, first=100)
    for first, count in ((100, 10), (113, 1), (120, 30)):
        part = draw_parameters(settings, count, seed=3, epoch=7, first=first)
        for field in fields(whole):
            expected = getattr(whole, field.name)[first - 100 : first - 100 + count]
            np.testing.assert_array_equal(getattr(part, field.name), expected)
    for seed, epoch in ((4, 7), (3, 8)):
        other = draw_parameters(settings, 50, seed, epoch, first=100)
        assert not np.isclose(other.warp, whole.warp).all(axis=(1, 2)).any()


def test_parameters_are_spread_as_the_settings_say():
    parameters = draw_parameters(SETTINGS["all"], 20_000, seed=0, epoch=0, first=0)
    flipped = np.linalg.det(parameters.warp[:, :, :2]) < 0
    angle = np.rad2deg(np.arctan2(-parameters.warp[:, 0, 1], parameters.warp[:, 1, 1]))
    assert abs(flipped.mean() - 0.5) < 0.02 and np.abs(angle).max() <= 7.001
    np.testing.assert_allclose(np.quantile(angle, [0.25, 0.75]), [-3.5, 3.5], atol=0.2)
    assert np.abs(parameters.warp[:, :, 2]).max() <= 0.1 + 2 * 0.06
    assert abs((parameters.sigma > 0).mean() - 0.4) < 0.02 and abs(parameters.degrade.mean() - 0.5) < 0.02
    assert parameters.sigma[parameters.sigma > 0].min() >= 0.2 and parameters.sigma.max() <= 1.5
    assert np.abs(parameters.gain - 1).max() <= 0.2 and np.abs(parameters.offset).max() <= 0.1


@pytest.mark.parametrize("size", [224, 112])
def test_evaluation_sees_what_the_image_processor_gives(pixels, size):
    processor = CxrFpnImageProcessor(size={"height": size, "width": size})
    expected = processor([Radiograph(image) for image in pixels.numpy()])["pixel_values"]
    torch.testing.assert_close(evaluation_view(pixels, size), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("render", [augment_with_opencv, augment_with_torch])
def test_the_mirror_of_what_was_turned(render, pixels):
    turned, mirrored = (
        render(pixels, draw_parameters(Augmentation(rotation_degrees=30, blur=0, mirror=share), 8, 0, 0, 0), 256)
        for share in (0.0, 1.0)
    )
    difference = (_grey(mirrored) - _grey(turned).flip(-1)).abs()
    assert difference.mean() < 0.75 and difference.quantile(0.999) < 4, (difference.mean(), difference.max())


def test_one_parameter_has_nothing_to_do_with_another():
    drawn = draw_parameters(SETTINGS["all"], 20_000, seed=0, epoch=0, first=0)
    flipped, angle = np.linalg.det(drawn.warp[:, :, :2]) < 0, np.arctan2(-drawn.warp[:, 0, 1], drawn.warp[:, 1, 1])
    values = [flipped, angle, *drawn.warp[:, :, 2].T, drawn.degrade, drawn.sigma, drawn.gain, drawn.offset]
    correlation = np.corrcoef(np.array(values, float)) - np.eye(len(values))
    assert np.abs(correlation).max() < 0.03
