"""Every kind of file and array that radiographs come as, and every kind that is refused."""

import gzip
import io
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from pixels_cxrfpn import RadiographError, stretch_to_8_bits
from radiograph_cxrfpn import decode_fields, read_radiograph
from tests.hardening.corpus import png, tiff


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def dicom(pixels: np.ndarray, bits: int = 12, **tags: object) -> FileDataset:
    """A minimal digital radiograph of unsigned pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PixelData = pixels.astype(np.uint8 if bits <= 8 else np.uint16).tobytes()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return dataset


def stored(dataset: FileDataset) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_lossless_files_give_their_pixels_back(drawing, form, tmp_path):
    path = tmp_path / f"drawing.{form.lower()}"
    path.write_bytes(encoded(Image.fromarray(drawing), form))
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), Image.open(path)):
        np.testing.assert_array_equal(read_radiograph(source).pixels, drawing)


@pytest.mark.parametrize(("form", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95})])
def test_lossy_files_come_close(drawing, form, options):
    pixels = read_radiograph(encoded(Image.fromarray(drawing), form, **options)).pixels
    assert np.abs(pixels.astype(int) - drawing).mean() < 2


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1"])
def test_every_mode_is_read_as_grey(drawing, mode):
    image = Image.fromarray(drawing).convert("L" if mode in "1P" else "RGB").convert(mode)
    pixels = read_radiograph(encoded(image, "TIFF")).pixels
    if mode == "1":  # dithered: only its local mean can agree
        assert set(np.unique(pixels)) == {0, 255} and abs(pixels.mean() - drawing.mean()) < 10
    else:
        assert np.abs(pixels.astype(int) - drawing).max() <= 1


def test_transparent_pixels_are_black_and_opaque_ones_untouched(drawing):
    rgba = np.dstack([drawing] * 3 + [np.full_like(drawing, 255)])
    np.testing.assert_array_equal(read_radiograph(encoded(Image.fromarray(rgba), "PNG")).pixels, drawing)
    rgba[:50, :, 3] = 0
    pixels = read_radiograph(encoded(Image.fromarray(rgba), "PNG")).pixels
    assert (pixels[:50] == 0).all() and np.abs(pixels[50:].astype(int) - drawing[50:]).max() <= 1


@pytest.mark.parametrize(
    ("dtype", "factor"), [(np.uint16, 257), (np.uint16, 16), (np.int32, 1000), (np.float32, 1 / 255)]
)
def test_wide_pixels_give_the_radiograph_of_their_8_bit_twin(drawing, dtype, factor):
    """A wide image turned to 8 bits by clipping would be white; the twin must be the same within 1 of 255."""
    for twin in (drawing, (drawing // 3 + 40).astype(np.uint8)):  # the second spans a part of the range only
        wide = (twin.astype(np.float64) * factor).astype(dtype)
        narrow = read_radiograph(twin).pixels.astype(int)
        for source in (
            wide,
            Image.fromarray(wide),
            encoded(Image.fromarray(wide), "TIFF"),
            wide[..., None],
            wide[None],
        ):
            assert np.abs(read_radiograph(source).pixels - narrow).max() <= 1


def test_a_16_bit_png_is_not_white(drawing):
    data = encoded(Image.fromarray(drawing.astype(np.uint16) * 257), "PNG")
    np.testing.assert_array_equal(read_radiograph(data).pixels, drawing)


def test_arrays_and_tensors_of_any_layout(drawing):
    colour = np.dstack([drawing] * 3)
    tensor = torch.from_numpy(drawing)
    for source in (drawing, colour, colour.transpose(2, 0, 1), drawing / 255.0, tensor, tensor[None] / 255):
        np.testing.assert_array_equal(read_radiograph(source).pixels, drawing)
    unequal = np.dstack([drawing, drawing // 2, drawing // 4])
    expected = np.asarray(Image.fromarray(unequal).convert("L"))
    assert np.abs(read_radiograph(unequal).pixels.astype(int) - stretch_to_8_bits(expected)).max() <= 2


def test_exif_rotation_is_undone(drawing):
    turned = Image.fromarray(drawing).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    np.testing.assert_array_equal(read_radiograph(encoded(turned, "PNG", exif=exif)).pixels, drawing)


def test_a_jpeg_decoded_at_reduced_scale_cannot_be_told_from_a_full_one(drawing):
    large = Image.fromarray(drawing).resize((1024, 1024), Image.Resampling.BICUBIC)
    data = encoded(large, "JPEG", quality=92)
    reduced = read_radiograph(data, least_side=500).pixels
    assert reduced.shape == (512, 512)

    def shrunk(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR)).astype(int)

    assert np.abs(shrunk(reduced) - shrunk(read_radiograph(data).pixels)).mean() < 1


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_dicom_of_every_depth_and_lossless_coding(drawing, syntax, bits):
    wide = drawing.astype(np.uint32) * (2**bits - 1) // 255
    dataset = dicom(wide, bits)
    if syntax is not None:
        dataset.compress(syntax)
    assert np.abs(read_radiograph(stored(dataset)).pixels.astype(int) - drawing).max() <= 1


def _with_frame(header: np.ndarray, frame: bytes, syntax: str) -> bytes:
    dataset = dicom(header, 8)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return stored(dataset)


def _filled(jpeg: bytes) -> bytes:
    """A JPEG with fill bytes before each of its first markers, which the standard allows (T.81, B.1.1.2)."""
    quantisation = jpeg.index(b"\xff\xdb")
    return jpeg[:quantisation] + b"\xff\xff\xff" + jpeg[quantisation:]


@pytest.mark.parametrize(
    ("form", "syntax"), [("JPEG", JPEGBaseline8Bit), ("JPEG, filled", JPEGBaseline8Bit), ("JPEG2000", JPEG2000Lossless)]
)
def test_dicom_with_the_frame_of_another_encoder_is_read_at_its_headers_size_alone(drawing, form, syntax):
    """Pillow wraps JPEG 2000 as a JP2 file. A decoder makes room for what a frame says, however little its header."""
    name, _, filled = form.partition(", ")
    large = Image.fromarray(drawing).resize((800, 800))
    frame, bomb = (encoded(image, name) for image in (Image.fromarray(drawing), large))
    if filled:
        frame, bomb = _filled(frame), _filled(bomb)
    pixels = read_radiograph(_with_frame(drawing, frame, syntax)).pixels.astype(int)
    assert np.abs(pixels - drawing).mean() < 4
    with pytest.raises(RadiographError, match=r"its pixels are 800 x 800, but its header says \d+ x \d+"):
        read_radiograph(_with_frame(drawing, bomb, syntax))
    hidden = bomb.replace(b"\xff\x4f\xff\x51", b"\xff\x4f\xff\x52").replace(b"\xff\xc0", b"\xff\xe0")
    with pytest.raises(RadiographError, match="its compressed pixels do not say their size"):
        read_radiograph(_with_frame(drawing, hidden, syntax))


def test_monochrome1_is_inverted_and_rescale_and_window_apply(drawing):
    wide = drawing.astype(np.uint16) * 16
    inverted = dicom(wide.max() - wide, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_radiograph(stored(inverted)).pixels, drawing)
    negative = dicom(wide, RescaleSlope=-1, RescaleIntercept=4080)
    np.testing.assert_array_equal(read_radiograph(stored(negative)).pixels, 255 - drawing)
    # DICOM PS3.3 C.11.2.1.2.1: centre c and width w map c - 0.5 -+ (w - 1) / 2 to the ends of the range.
    windowed = dicom(wide, WindowCenter=2040, WindowWidth=1021)
    expected = np.clip((wide - 2039.5) / 1020 + 0.5, 0, 1) * 255
    assert np.abs(read_radiograph(stored(windowed)).pixels - expected).max() <= 1


def test_a_palette_is_looked_up(drawing):
    """Places in a table of colours that runs backwards: read as grey levels, the radiograph would be its negative."""
    backwards = np.arange(255, -1, -1, dtype=np.uint16) * 257
    tables = {f"{colour}PaletteColorLookupTableData": backwards.tobytes() for colour in ("Red", "Green", "Blue")}
    shape = {f"{colour}PaletteColorLookupTableDescriptor": [256, 0, 16] for colour in ("Red", "Green", "Blue")}
    palette = dicom(255 - drawing, 8, PhotometricInterpretation="PALETTE COLOR", **shape, **tables)
    assert np.abs(read_radiograph(stored(palette)).pixels.astype(int) - drawing).max() <= 1


def test_a_dicom_header_tells_of_the_patient(drawing, tmp_path):
    path = tmp_path / "IM0001.dcm"
    tags = {"PatientAge": "063Y", "PatientSex": "F", "ViewPosition": "AP", "PatientName": "Doe^Jane"}
    path.write_bytes(stored(dicom(drawing, 8, **tags)))
    radiograph = read_radiograph(path)
    assert (radiograph.age, radiograph.sex, radiograph.view_position) == (63, "F", "AP")
    assert radiograph.notes == ()
    odd = dicom(drawing, 8, PatientAge="006M", PatientSex="O", ViewPosition="LL")
    radiograph = read_radiograph(stored(odd))
    assert (radiograph.age, radiograph.sex, radiograph.view_position) == (0.5, None, "LATERAL")
    assert radiograph.notes == ("The view is lateral, but the model knows frontal radiographs only.",)


def refused(source: object, name: str | None = None) -> str:
    with pytest.raises(RadiographError) as caught:
        read_radiograph(source, name)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_what_cannot_be_read_is_refused_in_one_line_that_names_the_file(drawing, tmp_path):
    png = encoded(Image.fromarray(drawing), "PNG")
    frames = [Image.fromarray(drawing)] * 2
    missing_pixels, two_frames = dicom(drawing, 8), dicom(np.vstack([drawing] * 2), 8, NumberOfFrames=2)
    del missing_pixels.PixelData
    two_frames.Rows = drawing.shape[0]
    for content, said in [
        (b"", "the file is empty"),
        (b"Findings: none.\n" * 50, "not an image"),
        (png[: len(png) // 2], "damaged or truncated"),
        (encoded(Image.new("L", (64, 64)), "PNG"), "every pixel has the value 0"),
        (encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]), "has several frames"),
        (stored(missing_pixels), "has no pixels"),
        (stored(two_frames), "has 2 frames"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 64, "DICOM file"),
        (stored(dicom(drawing, 8))[:2000], "is cut short: 1,438 of 32,000 bytes of its pixels are there"),
        (stored(dicom(0 * drawing, 8)), "every pixel has the value 0"),
    ]:
        path = tmp_path / "patient 7.png"
        path.write_bytes(content)
        message = refused(path)
        assert message.startswith(str(path)) and said in message, message
    assert "no such file" in refused(tmp_path / "nowhere.png")
    assert "is a folder" in refused(tmp_path)
    assert "no such file" in refused("https://example.org/chest.png")  # a string is a path and never fetched
    assert refused(png[:99], "upload.png").startswith("upload.png")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    # 20,000 x 20,000 pixels in a few kilobytes: decoding would take 400 MB.
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(encoded(Image.new("1", (20_000, 20_000)), "PNG"))
    assert bomb.stat().st_size < 100_000
    assert "20000 x 20000" in refused(bomb)
    dataset = dicom(np.eye(8) * 255, 8)
    dataset.Rows = dataset.Columns = 60_000
    assert "60000 x 60000" in refused(stored(dataset))


def test_arrays_that_are_no_radiograph_are_refused():
    assert "not finite" in refused(np.array([[0.0, np.nan], [1.0, 2.0]]))
    assert "no image" in refused(np.zeros((2, 3, 4, 5)))
    assert "no pixels" in refused(np.zeros((0, 5)))
    assert "holds no pixels" in refused(np.array([["a", "b"]]))
    assert "cannot read a radiograph from dict" in refused({})


def test_real_files_are_read(nih_mini: Path):
    files = sorted((nih_mini / "originals").iterdir())
    assert len(files) >= 17
    for path in files:
        pixels = read_radiograph(path).pixels
        assert pixels.shape == (1024, 1024) and (pixels.min(), pixels.max()) == (0, 255)
        assert 40 < pixels.mean() < 220


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(
    ("kind", "factor", "offset"),
    [
        ("u1", 1, 0),
        ("u2", 257, 0),
        ("u2", 16, 0),
        ("f4", 1 / 255, 0),
        ("i1", 1, -128),
        ("i2", 16, -2000),
        ("i4", 70000, -9000000),
        ("u4", 16843009, 0),
    ],
)
def test_tiffs_of_either_polarity_every_sign_and_depth(drawing, kind, factor, offset, photometric, order):
    """As in its own file: 0 white or black, the values signed or not, and 32 bits that are not signed."""
    values = drawing.astype(np.float64) * factor + offset
    if photometric == 0:  # the negative, whose 0 is white
        values = values.max() + values.min() - values
    data = tiff(values.astype(kind), photometric, order)
    if (kind, order) == ("u4", ">"):
        assert "a TIFF of a kind" in refused(data)
        return
    for source in (data, Image.open(io.BytesIO(data))) if photometric else (data,):
        np.testing.assert_array_equal(read_radiograph(source).pixels, drawing)


def test_a_tiff_whose_zero_is_white_is_right_as_an_open_image_too(drawing):
    image = Image.open(io.BytesIO(tiff((255 - drawing).astype(np.uint16) * 257, 0)))
    np.testing.assert_array_equal(read_radiograph(image).pixels, drawing)


def test_colours_of_16_bits_are_never_squeezed_into_a_few_levels(drawing):
    """Pillow keeps their upper 8 bits: enough of a picture that fills them, 16 levels of one of 12 bits."""
    for factor in (257, 16):
        deep = np.dstack([drawing.astype(np.uint16) * factor] * 3)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
        data = png(*drawing.shape[::-1], (b"IDAT", zlib.compress(rows)), depth=16, colour=2)
        if factor == 257:
            np.testing.assert_array_equal(read_radiograph(data).pixels, drawing)
        else:
            assert "would lose its grey levels" in refused(data)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_2000_files(drawing, bits):
    kind, factor = (np.uint8, 1) if bits == 8 else (np.uint16, 16 if bits == 12 else 257)
    data = encoded(Image.fromarray(drawing.astype(kind) * factor), "JPEG2000", irreversible=False)
    np.testing.assert_array_equal(read_radiograph(data, "film.jp2").pixels, drawing)


def test_of_the_pictures_in_a_phones_jpeg_the_first_is_read(drawing):
    """With its rotation, at reduced scale, and as an open image too; the limit of pixels is that of any file."""
    turned = Image.Exif()
    turned[274] = 6
    film = Image.fromarray(np.tile(drawing, (4, 4)))
    others = [Image.fromarray(255 - drawing.T), Image.fromarray(drawing[:50])]
    both = encoded(film, "MPO", save_all=True, append_images=others, exif=turned)
    alone = encoded(film, "JPEG", exif=turned)
    with Image.open(io.BytesIO(both)) as image:
        assert (image.format, image.n_frames) == ("MPO", 3)
        np.testing.assert_array_equal(read_radiograph(image).pixels, read_radiograph(alone).pixels)
    for least_side in (None, 100):
        expected = read_radiograph(alone, least_side=least_side).pixels
        np.testing.assert_array_equal(read_radiograph(both, least_side=least_side).pixels, expected)
    with pytest.raises(RadiographError, match="640 x 800 pixels are more"):
        read_radiograph(both, max_pixels=640 * 800 - 1)


@pytest.mark.parametrize("kind", ["u1", "<u2", ">u2", "<f4", ">f8", "<i4"])
def test_numpy_files(drawing, kind, tmp_path):
    for array in (drawing.astype(kind), np.asfortranarray(drawing.astype(kind)), drawing.astype(kind)[..., None]):
        np.save(tmp_path / "film.npy", array)
        np.testing.assert_array_equal(read_radiograph(tmp_path / "film.npy").pixels, drawing)
    data = (tmp_path / "film.npy").read_bytes()
    assert "cut short" in refused(data[:-1]) and "is damaged" in refused(data[:20])
    np.save(tmp_path / "film.npy", np.array([{}, {}]), allow_pickle=True)
    assert "holds no pixels" in refused(tmp_path / "film.npy")


def test_files_in_gzip(drawing, tmp_path, monkeypatch):
    for name, data in [
        ("film.dcm.gz", stored(dicom(drawing, 8))),
        ("a.png.gz", encoded(Image.fromarray(drawing), "PNG")),
    ]:
        (tmp_path / name).write_bytes(gzip.compress(data))
        np.testing.assert_array_equal(read_radiograph(tmp_path / name).pixels, drawing)
    assert "the gzip file is cut short" in refused(gzip.compress(data)[:-9])
    assert "the gzip file is damaged" in refused(b"\x1f\x8b" + bytes(100))
    monkeypatch.setattr("radiograph_cxrfpn.MAX_BYTES", 2**20)
    with pytest.raises(RadiographError, match="inflates to more than"):  # in this process, whose limit was changed
        decode_fields(gzip.compress(bytes(2**20 + 1)), "image", None, 100)


def test_reading_imports_neither_torch_nor_transformers_nor_pandas():
    """Those take seconds to start; who predicts with another engine needs none of them."""
    modules = "radiograph_cxrfpn, patient_cxrfpn, answer_cxrfpn, thresholds_cxrfpn, cxrfpn.prediction.inputs"
    heavy = "'torch', 'torchvision', 'transformers', 'pandas', 'pydicom'"
    program = f"import sys, {modules}; print([name for name in ({heavy}) if name in sys.modules])"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
