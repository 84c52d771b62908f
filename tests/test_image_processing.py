"""The processor's geometry and normalisation against torchvision's, and what it puts back over a radiograph."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv
from transformers import AutoImageProcessor

from image_processing_cxrfpn import CxrFpnImageProcessor
from pixels_cxrfpn import RadiographError
from preparation_cxrfpn import crop_and_resize

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def processor() -> CxrFpnImageProcessor:
    return CxrFpnImageProcessor()


@pytest.mark.parametrize("side", [1000, 500, 240])
def test_the_geometry_is_the_central_nine_tenths_resized_to_224(processor, drawing, side):
    square = np.asarray(Image.fromarray(drawing).resize((side, side), Image.Resampling.BICUBIC))
    square = np.clip(square.astype(float) - square.min(), 0, None)
    square = np.rint(square * 255 / square.max()).astype(np.uint8)
    crop = tv.center_crop(torch.from_numpy(square)[None].float() / 255, [round(0.9 * side)] * 2)
    resized = tv.resize(crop, [224, 224], antialias=True).expand(3, -1, -1)
    expected = (resized - MEAN[:, None, None]) / STD[:, None, None]
    pixel_values = processor(square)["pixel_values"]
    assert pixel_values.shape == (1, 3, 224, 224) and pixel_values.dtype == torch.float32
    # Half a grey level of rounding to 8 bits, and as much between two resizing libraries.
    assert (pixel_values[0] - expected).abs().max() <= 1.1 / 255 / STD.min()


def test_a_16_bit_file_and_its_8_bit_twin_give_the_same_tensor(processor, drawing):
    def png(array: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG")
        return file.getvalue()

    for twin in (drawing, drawing // 2 + 30):
        narrow, wide = processor([png(twin), png(twin.astype(np.uint16) * 257)])["pixel_values"] * STD[:, None, None]
        assert (narrow - wide).abs().max() <= 1 / 255


def test_a_list_a_batch_and_single_images_agree(processor, drawing, tmp_path):
    path = tmp_path / "drawing.png"
    Image.fromarray(drawing).save(path)
    single = processor(path)["pixel_values"]
    batch = torch.from_numpy(np.stack([drawing] * 3))[:, None]
    for images, count in (([path] * 3, 3), (batch, 3), ((Image.open(path),), 1), (str(path), 1)):
        pixel_values = processor(images, return_tensors="pt")["pixel_values"]
        assert len(pixel_values) == count
        assert all(torch.equal(one, single[0]) for one in pixel_values)


def test_size_and_crop_are_settings_that_survive_saving(drawing, tmp_path, run_python):
    processor = CxrFpnImageProcessor(size={"height": 96, "width": 96}, crop_fraction=1.0)
    processor.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert torch.equal(loaded(drawing)["pixel_values"], processor(drawing)["pixel_values"])
    assert loaded(drawing)["pixel_values"].shape[-1] == 96
    whole = np.asarray(Image.fromarray(drawing).resize((96, 96), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(crop_and_resize(drawing, (96, 96), 1.0), whole)


def test_an_unreadable_file_is_named(processor, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no radiograph")
    with pytest.raises(RadiographError, match=r"notes\.txt: not an image"):
        processor([path])


def test_a_finding_map_is_put_back_where_it_was_seen(processor):
    finding_map = np.zeros((28, 28))
    finding_map[7, 21] = 1.0  # the centre of this cell lies at 21.5/28 of the crop from the left, 7.5/28 from the top
    placed = processor.place_map(finding_map, height=1000, width=800)
    assert placed.shape == (1000, 800) and placed.min() >= 0 and placed.max() <= 1
    top, left = np.unravel_index(placed.argmax(), placed.shape)
    assert left == pytest.approx(800 * (0.05 + 0.9 * 21.5 / 28), abs=2)
    assert top == pytest.approx(1000 * (0.05 + 0.9 * 7.5 / 28), abs=2)
    assert not placed[:49].any() and not placed[:, :39].any()


def test_a_large_jpeg_is_decoded_with_twice_the_pixels_that_are_needed(processor, drawing):
    file = io.BytesIO()
    Image.fromarray(drawing).resize((1600, 1600)).save(file, "JPEG")
    # 224 / 0.9 pixels are needed; a quarter, 400, would do for those, and half is the least that leaves twice as many.
    assert processor.read(file.getvalue()).pixels.shape == (800, 800)
