"""The page's scripts read films as Python does, to the last bit; run by Node, without a browser."""

import hashlib
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from browser.writing import gate_content
from cxrfpn.data.phantom import draw_phantom
from gate_cxrfpn import LEAST_FIT, film_fit
from pixels_cxrfpn import RadiographError
from preparation_cxrfpn import Preparation
from tests.browser.conftest import BROWSER
from tests.hardening.corpus import drawing, encoded, make_corpus
from tests.hardening.dicoms import encapsulated, lossless_jpeg, make_dicom, stored
from tools.non_chest import KINDS

SETTINGS = {
    "size": {"height": 128, "width": 128}, "crop_fraction": 0.9, "resample": 2, "do_resize": True, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
}  # fmt: skip
MAX_PIXELS = 30_000_000
# Read by Python only; the page says so.
OTHER_KINDS = (".tif", ".tiff", ".bmp", ".npy", ".jp2")
ONLY_IN_PYTHON = {"sound_cmyk.jpg": "a JPEG in CMYK is not read here"}


def read_by_node(node: str, files: dict[str, bytes], folder: Path, **settings: object) -> dict[str, dict]:
    """What the page's scripts make of files."""
    (folder / "settings.json").write_text(json.dumps(SETTINGS | settings))
    (folder / "gate.json").write_text(json.dumps(gate_content()))
    paths = []
    for name, data in files.items():
        paths.append(folder / name)
        paths[-1].write_bytes(data)
    command = [node, BROWSER / "read_files.js", folder / "settings.json", folder / "gate.json", *paths]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    return {row.pop("name"): row for row in map(json.loads, run.stdout.splitlines())}


def read_by_python(data: bytes, name: str, **settings: object) -> dict:
    preparation = Preparation.from_settings(SETTINGS | settings)
    try:
        radiograph = preparation.read(data, name, MAX_PIXELS)
    except RadiographError as error:
        return {"error": str(error)}
    height, width = radiograph.pixels.shape
    return {
        "width": width, "height": height, "pixels": hashlib.sha256(radiograph.pixels.tobytes()).hexdigest(),
        "crop": preparation.crop(radiograph.pixels).ravel().tolist(), "patient": radiograph.patient.values(),
        "notes": list(radiograph.notes), "fit": film_fit(radiograph.pixels),
    }  # fmt: skip


def assert_same(ours: dict[str, dict], files: dict[str, bytes], **settings: object) -> None:
    assert list(ours) == list(files)
    for name, data in files.items():
        assert_alike(ours[name], read_by_python(data, name, **settings), name)


def assert_alike(ours: dict, expected: dict, name: str) -> None:
    """Equal to the last bit; the fit is a float of another precision."""
    assert ours.pop("fit", None) == pytest.approx(expected.pop("fit", None), abs=1e-3), name
    assert ours == expected, name


def test_the_corpus_is_read_alike(node, tmp_path):
    corpus = {
        name: file.data
        for name, file in make_corpus().items()
        if name.startswith(("sound_", "shape_", "dicom_", "impostor_", "frames_")) and not name.endswith(OTHER_KINDS)
    }
    ours = read_by_node(node, corpus, tmp_path)
    read = 0
    for name, data in corpus.items():
        expected = read_by_python(data, name)
        if name in ONLY_IN_PYTHON:
            assert ONLY_IN_PYTHON[name] in ours[name]["error"]
        elif "error" in expected:
            assert ours[name].get("error", "").startswith(f"{name}: "), name
        else:
            assert_alike(ours[name], expected, name)
            read += 1
    assert read > 90


def test_larger_pictures_are_read_alike(node, tmp_path):
    """Reduced and progressive JPEGs, colours at any sampling, restarts, transparency, a range of 16 bits."""
    grey = drawing(700, 613)
    colours = np.dstack([grey, np.roll(grey, 9, 1), 255 - grey])
    image, colour = Image.fromarray(grey), Image.fromarray(colours)
    clear = Image.fromarray(np.dstack([colours, np.roll(grey, 50, 0)]))
    deep = grey.astype(np.uint16) * 37 + np.random.default_rng(3).integers(0, 37, grey.shape).astype(np.uint16)
    files = {
        f"grey_{side}.jpg": encoded(Image.fromarray(drawing(side, side - 31)), "JPEG") for side in (320, 600, 1200)
    }
    files |= {f"colour_{sampling}.jpg": encoded(colour, "JPEG", subsampling=sampling) for sampling in (0, 1, 2)}
    files |= {
        "progressive.jpg": encoded(colour, "JPEG", progressive=True),
        "coarse.jpg": encoded(image, "JPEG", quality=20, progressive=True, restart_marker_blocks=7),
        "rgb.jpg": encoded(colour, "JPEG", keep_rgb=True),
        "restarts.jpg": encoded(colour, "JPEG", restart_marker_rows=1),
        "lossy.webp": encoded(colour, "WEBP", quality=60),
        "clear.webp": encoded(clear, "WEBP"),
        "deep.png": encoded(Image.fromarray(deep), "PNG"),
        "colour.png": encoded(colour, "PNG"),
        "clear.png": encoded(clear, "PNG"),
        "one_level_clear.png": encoded(image, "PNG", transparency=100),
        "two_bits.png": encoded(colour.quantize(4), "PNG", bits=2),
    }
    assert_same(read_by_node(node, files, tmp_path), files)


def test_larger_dicoms_are_read_alike(node, tmp_path):
    grey = drawing(400, 357)
    deep = grey.astype(np.uint16) * 16 + np.random.default_rng(3).integers(0, 16, grey.shape).astype(np.uint16)
    patient = {"PatientAge": "063Y", "PatientSex": "F", "ViewPosition": "AP"}
    dates = {"PatientBirthDate": "19500203", "StudyDate": "20120301", "Modality": "CT", "BodyPartExamined": "HAND"}
    headers = {
        "windowed": {"WindowCenter": 2000, "WindowWidth": 2500, **patient},
        "dates": {"PatientOrientation": ["A", "F"], **dates},
        "identity": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
    }
    files = {f"{name}.dcm": stored(make_dicom(deep, **tags)) for name, tags in headers.items()}
    padded = np.pad(deep, 300, constant_values=4095)
    files["padded.dcm"] = stored(make_dicom(padded, 12, PixelPaddingValue=4095))
    for name, syntax in (("runs", RLELossless), ("jpeg_2000", JPEG2000Lossless), ("jpeg_ls", JPEGLSLossless)):
        for bits, pixels in ((8, grey), (12, deep)):
            dataset = make_dicom(pixels, bits)
            dataset.compress(syntax, generate_instance_uid=False)
            files[f"{name}_{bits}.dcm"] = stored(dataset)
    files["lossless.dcm"] = stored(encapsulated(deep, JPEGLosslessSV1, lossless_jpeg(deep), bits=12))
    files["jpeg.dcm"] = stored(encapsulated(grey, JPEGBaseline8Bit, encoded(Image.fromarray(grey), "JPEG")))
    assert_same(read_by_node(node, files, tmp_path), files)


@pytest.mark.parametrize("settings", [{"prepared_size": 256}, {"resample": 3, "crop_fraction": 0.8}])
def test_a_package_may_prepare_radiographs_in_another_way(node, tmp_path, settings):
    files = {
        f"{width}.{form.lower()}": encoded(Image.fromarray(drawing(width + 40, width)), form)
        for width in (90, 300, 1500)
        for form in ("PNG", "JPEG")
    }
    assert_same(read_by_node(node, files, tmp_path, **settings), files, **settings)


def test_pictures_of_any_kind_and_size_get_the_same_fit(node, tmp_path):
    pictures = {f"{kind}.png": draw(np.random.default_rng(5)) for kind, draw in KINDS.items()}
    for number in range(6):
        pixels, _ = draw_phantom(np.random.default_rng([7, number]), 40, "F", "PA", ())
        pictures[f"phantom_{number}.png"] = Image.fromarray(pixels)
        pictures[f"negative_{number}.png"] = Image.fromarray(255 - pixels)
        side = 500 + 411 * number  # from 1024 on, pixels are left out before the picture is shrunk
        pictures[f"side_{side}.png"] = Image.fromarray(pixels).resize((side, side - 37))
    files = {name: encoded(picture, "PNG") for name, picture in pictures.items()}
    ours = read_by_node(node, files, tmp_path)
    assert {row["fit"] >= LEAST_FIT for row in ours.values()} == {True, False}
    assert_same(ours, files)


def test_real_radiographs_are_read_alike(node, nih_mini, tmp_path):
    paths = sorted((nih_mini / "originals").iterdir())
    if not paths:
        pytest.skip("the original films of nih-mini are not here")
    files = {path.name: path.read_bytes() for path in paths}
    for path in paths[:4]:  # as other collections keep them
        file = io.BytesIO()
        Image.open(path).convert("L").save(file, "JPEG", quality=90)
        files[path.with_suffix(".jpg").name] = file.getvalue()
    assert_same(read_by_node(node, files, tmp_path), files)
