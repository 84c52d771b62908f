"""predict.py --dicom-out: what is written is valid by another program, linked to the film, and names nobody."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from answer_cxrfpn import Answer
from configuration_cxrfpn import FINDINGS
from cxrfpn.prediction.dicom_capture import draw_capture
from cxrfpn.prediction.dicom_out import save_reports
from cxrfpn.prediction.dicom_report import linking_header
from cxrfpn.prediction.inputs import Input
from cxrfpn.prediction.predicting import predict
from engine_cxrfpn import load_engine
from tests.hardening.dicoms import make_dicom

LINKED = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.5", "PatientID": "ward-7"}
NAMES = {"PatientName": "Doe^Jane", "PatientBirthDate": "19500102", "ReferringPhysicianName": "House^Gregory"}


def save_film(path: Path, pixels: np.ndarray, **tags: str) -> Path:
    film = make_dicom(pixels.astype(np.uint16) * 16, Modality="DX", BodyPartExamined="CHEST", **LINKED, **NAMES, **tags)
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    film.save_as(path, enforce_file_format=True)
    return path


def items(container: Dataset, meaning: str) -> list[Dataset]:
    """The content items with this concept name, in any depth."""
    found = []
    for item in container.get("ContentSequence", ()):
        if item.ConceptNameCodeSequence[0].CodeMeaning == meaning:
            found.append(item)
        found.extend(items(item, meaning))
    return found


@pytest.fixture(scope="module")
def calling_package(package, tmp_path_factory):
    """A package that answers any finding, and calls some findings present, absent and uncertain."""
    folder = shutil.copytree(package, tmp_path_factory.mktemp("calling") / "package")
    content = json.loads((folder / "thresholds.json").read_text())
    limits = {
        "Mass": {"present_from": 0.0, "absent_up_to": 0.0},
        "Nodule": {"present_from": 1.0, "absent_up_to": 1.0},
        "any_finding": {"present_from": 0.0, "absent_up_to": 1.0},
    }
    thresholds = dict.fromkeys(content["operating_points"], 0.4)
    content["any_finding"] = {"thresholds": thresholds, "calibration": {"slope": 1.0, "intercept": 0.0}}
    content["conformal"] = {"guarantee": 0.9, "limits": limits}
    (folder / "thresholds.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def written(run_python, calling_package, drawing, tmp_path_factory):
    """A film, its report, its capture, and their paths; a PNG and a film without a study lay beside it."""
    tmp_path = tmp_path_factory.mktemp("ward")
    film = save_film(tmp_path / "film.dcm", drawing, AccessionNumber="A77", PatientAge="63")
    lone = dcmread(save_film(tmp_path / "lone.dcm", drawing))
    del lone.StudyInstanceUID
    lone.save_as(tmp_path / "lone.dcm", enforce_file_format=True)
    shutil.copy(Path(__file__).parents[1] / "demo" / "examples" / "phantom-edema.png", tmp_path / "drawn.png")
    done = run_python("predict.py", film, tmp_path / "lone.dcm", tmp_path / "drawn.png", "--model", calling_package,
                      "--dicom-out", tmp_path / "out", "--format", "csv")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "lone.dcm: no report can be linked to this header (it lacks StudyInstanceUID)" in done.stderr
    assert "drawn.png: is no DICOM file" in done.stderr
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name.rsplit("film_")[-1] for path in paths] == ["capture.dcm", "report.dcm"]
    return dcmread(film), dcmread(paths[1]), dcmread(paths[0]), paths


@pytest.fixture(scope="module")
def pipe(calling_package):
    return load_engine(str(calling_package))


def test_a_report_says_what_the_pipeline_says(written, pipe):
    film, report, _, _ = written
    findings = pipe(film.filename)
    answer = {finding["label"]: finding for finding in [findings.any_finding, *findings]}
    assert {answer[label]["call"] for label in ("Mass", "Nodule", "any_finding")} == {"present", "absent", "uncertain"}
    groups = items(report, "Measurement Group")
    assert len(groups) == len(FINDINGS) + 1
    for group in groups:
        label = items(group, "Tracking Identifier")[0].TextValue
        values = {
            name: float(items(group, name)[0].MeasuredValueSequence[0].NumericValue)
            for name in ("Score", "Threshold of the score")
        }
        expected = answer.pop(label)
        assert values["Score"] == pytest.approx(expected["score"], abs=2e-6)
        assert values["Threshold of the score"] == pytest.approx(expected["threshold"], abs=2e-6)
        call = items(group, "Score at or above its threshold")[0].ConceptCodeSequence[0].CodeMeaning
        assert call == ("Present" if expected["positive"] else "Absent")
        three_way = [item.ConceptCodeSequence[0] for item in items(group, "Present, absent or uncertain")]
        assert [code.CodeMeaning.lower() for code in three_way] == ([expected["call"]] if expected["call"] else [])
        assert items(group, "Algorithm Version")[0].TextValue == pipe.weights_digest()[:12]
        assert items(group, "Algorithm Parameters")[0].TextValue.startswith("Not for clinical use.")
        source = items(group, "Source of Measurement")[0].ReferencedSOPSequence[0]
        assert source.ReferencedSOPInstanceUID == film.SOPInstanceUID
    assert not answer


def test_outputs_are_linked_to_the_film_and_name_nobody(written):
    film, report, capture, paths = written
    for output in (report, capture):
        for keyword in ("StudyInstanceUID", "PatientID", "AccessionNumber"):
            assert output[keyword].value == film[keyword].value
        assert output.SeriesInstanceUID != film.SeriesInstanceUID and output.PatientName == ""
        assert "not for clinical use" in output.SeriesDescription
    for path in paths:
        content = path.read_bytes()
        assert not [name for name in ("Doe", "Jane", "19500102", "House") if name.encode() in content]
    assert (report.Modality, capture.Modality) == ("SR", "OT") and capture.BurnedInAnnotation == "YES"
    assert capture.pixel_array.shape[2] == 3 and capture.pixel_array[:, -500:].max() == 255


def test_the_same_film_and_weights_get_the_same_uids(written, pipe, tmp_path):
    film, report, capture, _ = written
    inputs = [Input(Path(film.filename))]
    unlinked: list[str] = []
    list(save_reports(predict(pipe, inputs, maps=True), inputs, pipe, tmp_path / "again", unlinked))
    again = {path.name.rsplit("_")[-1]: dcmread(path) for path in (tmp_path / "again").iterdir()}
    assert again["report.dcm"].SOPInstanceUID == report.SOPInstanceUID and not unlinked
    assert again["capture.dcm"].SeriesInstanceUID == capture.SeriesInstanceUID


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian's dicom3tools)")
def test_dciodvfy_finds_no_error(written):
    for path in written[3]:
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "Error" not in done.stdout + done.stderr, done.stderr
        assert ("ComprehensiveSR" if "report" in path.name else "SCImage") in done.stdout + done.stderr


def test_a_capture_shows_the_map_only_of_a_called_finding(drawing):
    finding = {"label": "Mass", "score": 0.7, "threshold": 0.5, "positive": True, "call": "uncertain"}
    answer = Answer([finding], ["The view is a lateral."])
    hot = np.zeros(drawing.shape, np.float32)
    hot[50:70, 40:60] = 1
    called, silent = (np.asarray(draw_capture(drawing, shown, answer, "abc")) for shown in (("Mass", hot), None))
    film = silent[: drawing.shape[0], : drawing.shape[1]]
    assert (film == drawing[..., None]).all()
    assert (called[50:70, 40:60, 0] > called[50:70, 40:60, 2]).any() and called.shape == silent.shape


def test_a_header_keeps_only_what_links():
    film = Dataset()
    film.update({"PatientName": "Doe^Jane", "OtherPatientNames": "Roe", "PatientComments": "of Doe", **LINKED})
    film.SOPClassUID, film.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    header = linking_header(film)
    assert "Doe" not in str(header) and "Roe" not in str(header) and header.PatientID == "ward-7"
