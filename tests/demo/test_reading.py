"""One upload through the reader, in process."""

import asyncio
import base64
import gzip
import io
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from decoding_cxrfpn import decode_apart
from demo.examples import FOLDER, load_examples
from demo.figures import ABSENT, Figures
from demo.page import build
from demo.points import describe_points
from demo.queueing import BUSY
from demo.reading import Reader, patient_from_form, patient_in, patient_to_form
from demo.uploads import Upload, read_upload
from engine_cxrfpn import load_engine
from overlay_cxrfpn import overlay

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reader(package: Path) -> Reader:
    return Reader(load_engine(str(package)))


@pytest.fixture(scope="module")
def example() -> Upload:
    return read_upload(FOLDER / load_examples()[1]["file"])


def picture(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def test_layers_laid_over_the_radiograph_are_the_overlay(reader, example):
    reading = reader.read(example, {}, maps=True)
    shown = reader.show(reading, example)
    finding, sent = next(
        pair for pair in zip(reading.findings, shown["findings"], strict=True) if pair[1]["map"] is not None
    )
    layer = picture(sent["map"]).convert("RGBA")
    film = picture(shown["image"]).convert("RGB").resize(layer.size)
    layer.putalpha(layer.getchannel("A").point(lambda level: 0.6 * level))
    ours = np.asarray(Image.alpha_composite(film.convert("RGBA"), layer).convert("RGB"), float)
    small = np.asarray(film.convert("L"))
    placed = reader.engine.place_map(finding["map"], *small.shape)
    assert np.abs(ours - np.asarray(overlay(small, placed, 0.6), float)).max() <= 3


def test_a_finding_for_which_nothing_speaks_has_no_map(reader, example):
    reading = reader.read(example, {}, maps=True)
    reading.findings[0]["map"][:] = 0
    assert reader.show(reading, example)["findings"][0]["map"] is None


def test_sixteen_bits_survive(reader, drawing):
    """Levels that differ only in the low byte of a 16-bit PNG stay apart."""
    file = io.BytesIO()
    Image.fromarray(drawing.astype(np.uint16) + 30000).save(file, "PNG")
    pixels = reader.read(Upload("deep.png", file.getvalue()), {}).pixels
    assert np.abs(pixels.astype(int) - drawing).max() <= 1


@pytest.mark.parametrize("kind", ["bomb.png", "bomb.dcm"])
def test_files_of_more_pixels_than_a_detector_has_are_refused(reader, dicom, drawing, monkeypatch, kind):
    monkeypatch.setattr("demo.reading.MAX_PIXELS", 30_000)
    file = io.BytesIO()
    Image.fromarray(drawing).save(file, "PNG")
    upload = Upload(kind, file.getvalue() if kind.endswith("png") else dicom())
    with pytest.raises(ValueError, match=f"^{kind}: 160 x 200 pixels are more than 0.03 million"):
        reader.read(upload, {})


def test_what_the_page_says_overrules_the_header_and_what_it_leaves_out_does_not(reader, dicom):
    upload = Upload("scan.dcm", dicom(PatientAge="058Y", PatientSex="F", ViewPosition="AP"))
    assert reader.read(upload, {}).patient == {"age": 58, "sex": "F", "view_position": "AP"}
    patient = {"age": None, "sex": "M", "view_position": None}
    assert reader.read(upload, patient).patient == patient


def test_an_answer_is_small_and_holds_no_path(reader, example):
    shown = reader.show(reader.read(example, {}, maps=True), example)
    plain = re.sub(r"base64,[^']*", "", str(shown))
    assert "/" not in plain.replace("data:image/", "") and len(str(shown)) < 600_000
    assert shown["drawn"] == ["Cardiomegaly", "Effusion"]


@pytest.mark.parametrize("age", ["-1", "121", "nan years", "1e9", "٣٤x"])
def test_an_age_that_is_none_is_refused_in_one_line(age):
    with pytest.raises(ValueError, match="from 0 to 120"):
        patient_from_form(age, "F", "PA")


def test_the_form_and_back():
    patient = {"age": 0.5, "sex": None, "view_position": "PA"}
    assert patient_from_form(*patient_to_form(patient)) == patient
    assert patient_from_form("", "unknown", "unknown") == dict.fromkeys(("age", "sex", "view_position"))


def test_a_package_without_figures_says_so(reader):
    figures = Figures(reader.engine)
    assert figures.page() == ABSENT and figures.measured_on() == ""
    assert [point["figures"] for point in describe_points(reader.engine.thresholds, figures)] == [None, None]


def test_figures_of_other_thresholds_are_not_shown_beside_these(reader):
    figures = Figures(reader.engine)
    thresholds = reader.engine.thresholds.operating_points["youden"]
    points = {finding: {"threshold": value, "sensitivity": 0.5} for finding, value in thresholds.items()}
    figures.content = {"operating_points": {"youden": points}}
    assert figures.of_operating_point("youden", thresholds) == points
    assert figures.of_operating_point("youden", {**thresholds, "Mass": 0.99}) is None


def test_examples_are_small_and_every_file_is_listed():
    listed = {example["file"] for example in load_examples()}
    files = {path.name: path.stat().st_size for path in FOLDER.glob("*.png")}
    assert set(files) == listed and max(files.values()) < 60 * 1024


def test_the_demo_needs_nothing_of_the_training_code():
    modules = [ROOT / "app.py", *(ROOT / "demo").glob("*.py")]
    assert not [path.name for path in modules if "cxrfpn." in path.read_text()]


def test_requirements_are_the_ranges_of_the_project():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]
    known = {*project["dependencies"], *extra["dicom"], *extra["demo"]}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = {line for line in lines if line and not line.startswith("#")}
    assert wanted <= known
    assert {name for name in known if not name.startswith(("tqdm", "cxr-densenet"))} <= wanted


def test_a_full_queue_tells_people_what_to_do(reader):
    page = build(reader.engine)
    page._queue.max_size = 0
    answer = asyncio.run(page._queue.push(SimpleNamespace(fn_index=0), request=None, username=None))
    assert answer == (False, BUSY, "queue_full")


def test_the_table_calls_as_the_pipeline_does(reader):
    """A threshold may be a score itself, to the last digit: a rounded score would fall on the wrong side of it."""
    path = FOLDER / load_examples()[1]["file"]
    read_all = next(event.fn for event in build(reader.engine).fns.values() if event.name == "read_all")
    *_, last = read_all([str(path)])
    assert last["rows"][0]["scores"] == {each["label"]: each["score"] for each in reader.engine(path)}


def test_one_pipeline_reads_in_several_threads_at_once(reader):
    """The page does, with a reading beside a batch: no answer may hold anything of another's radiograph."""
    uploads = [read_upload(FOLDER / each["file"]) for each in load_examples()]

    def read(number: int) -> list[tuple]:
        findings = reader.read(uploads[number % len(uploads)], {"age": number}, maps=number % 2 == 0).findings
        return [(each["label"], each["score"], each.get("map", np.zeros(1)).tobytes()) for each in findings]

    alone = [read(number) for number in range(24)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(24))) == alone


def test_the_pages_scripts_are_read_as_utf_8_wherever_they_are_served():
    command = [sys.executable, "-X", "utf8=0", "-c", "from demo.page import _script; print(len(_script('reader.js')))"]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_notes_reach_the_page_and_a_header_is_read_without_its_pixels(reader, dicom):
    upload = Upload("side.dcm", dicom(ViewPosition="LL", PatientAge="58", PixelData=b"\0\0"))
    assert patient_in(upload) == {"age": 58, "sex": None, "view_position": "LATERAL"}
    upload = Upload("side.dcm", dicom(ViewPosition="LL"))
    reading = reader.read(upload, {"view_position": None}, maps=True)
    (note,) = reader.show(reading, upload)["notes"]
    assert note.startswith("The view is lateral")
    assert patient_to_form(patient_in(upload))[2] == "unknown"


def test_the_form_and_a_reading_decode_a_file_once(reader, dicom, monkeypatch):
    """One that is deflated or lies in gzip too, of which no more is inflated for the form than a header takes."""
    decoded = []

    def decode(data: bytes, *arguments: object) -> object:
        decoded.append(data)
        return decode_apart(data, *arguments)

    monkeypatch.setattr("radiograph_cxrfpn.decode_apart", decode)
    header = {"PatientAge": "058Y", "PatientSex": "F"}
    files = {
        "film.dcm": dicom(**header),
        "deflated.dcm": dicom(DeflatedExplicitVRLittleEndian, **header),
        "film.dcm.GZ": gzip.compress(dicom(**header)),
    }
    for name, data in files.items():
        upload = Upload(name, data)
        assert patient_in(upload) == {"age": 58, "sex": "F", "view_position": None}, name
        reader.read(upload, patient_in(upload))
    assert decoded == list(files.values())
    assert patient_in(Upload("film.png", b"\x89PNG")) is None
