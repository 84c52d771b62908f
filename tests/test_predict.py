"""predict.py as a user runs it: a real process, real files, its output and its exit code."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import pipeline

from configuration_cxrfpn import FINDINGS
from cxrfpn.prediction.inputs import (
    Input,
    InputError,
    PatientRow,
    PatientTable,
    find_radiographs,
    match_patients,
    read_patients,
)
from cxrfpn.prediction.maps import save_maps
from cxrfpn.prediction.predicting import predict as predict_inputs
from engine_cxrfpn import load_engine
from patient_cxrfpn import Patient
from predict import main
from radiograph_cxrfpn import KINDS
from tests.hardening.dicoms import make_dicom, stored


@pytest.fixture(scope="module")
def folder(tmp_path_factory, drawing) -> Path:
    """Good radiographs in two depths, a bad one among them, and a file that is none of our business."""
    folder = tmp_path_factory.mktemp("ward")
    (folder / "deep").mkdir()
    for name, pixels in (("a.png", drawing), ("b.jpg", drawing[::-1]), ("deep/c.tif", drawing[:, ::-1])):
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / name)
    (folder / "b_bad.png").write_bytes(b"not a picture")
    (folder / "letter.docx").write_bytes(b"Dear colleague")
    return folder


def predict(run_python, package: Path, *arguments: object):
    return run_python("predict.py", *arguments, "--model", package)


def test_a_folder_with_a_bad_file_in_it(run_python, package, folder):
    done = predict(run_python, package, folder, "--format", "json", "--batch-size", 2)
    assert done.returncode == 2
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(record["image"]).name for record in records] == ["a.png", "b.jpg", "b_bad.png", "c.tif"]
    for record in records:
        if record["image"].endswith("b_bad.png"):
            assert record["error"].endswith(f"not an image that can be read ({KINDS})")
        else:
            assert sorted(each["label"] for each in record["findings"]) == sorted(FINDINGS)
            assert set(record["findings"][0]) == {"label", "score", "probability", "threshold", "positive", "call"}
    assert "1 of 4 could not be predicted" in done.stderr and "Traceback" not in done.stderr


def test_the_forms_agree(run_python, package, folder, tmp_path):
    image = folder / "a.png"
    patient = ["--age", 63, "--sex", "F", "--view-position", "AP"]
    table = predict(run_python, package, image, *patient)
    record = json.loads(predict(run_python, package, image, *patient, "--format", "json").stdout)
    scores = {each["label"]: each["score"] for each in record["findings"]}
    assert table.returncode == 0 and table.stdout.startswith(str(image))
    for name in FINDINGS:
        assert f"{name:<20}{scores[name]:>7.3f}" in table.stdout
    (row,) = csv.DictReader(io.StringIO(predict(run_python, package, image, *patient, "--format", "csv").stdout))
    assert {name: float(row[name]) for name in FINDINGS} == pytest.approx(scores)
    assert row["image"] == str(image)
    assert row["positive"] == "|".join(each["label"] for each in record["findings"] if each["positive"])
    output = tmp_path / "findings.parquet"
    done = predict(run_python, package, image, *patient, "--format", "parquet", "--output", output)
    assert done.returncode == 0 and f"written: {output}" in done.stderr
    (row,) = pq.read_table(output).to_pylist()
    assert {name: row[name] for name in FINDINGS} == pytest.approx(scores)
    assert [path.name for path in tmp_path.iterdir()] == ["findings.parquet"]


def test_a_table_of_patients(run_python, package, folder, tmp_path):
    """A row matches by file name or stem; an impossible patient is its own file's error; what is left over is said."""
    table = tmp_path / "patients.csv"
    table.write_text(
        "Image Index,Patient Age,Patient Gender,View Position\na.png,63,F,AP\nb,abc,M,\nghost.png,1,M,PA\n"
    )
    done = predict(run_python, package, folder / "**" / "*.[pjt]*[gf]", "--patients", table, "--format", "json")
    assert "2 files have no row" in done.stderr and "1 of its rows have no file" in done.stderr
    first, second, _, last = (json.loads(line) for line in done.stdout.splitlines())
    message = "patients.csv, row 3: age 'abc' is not a number of years; leave it out if it is unknown"
    assert second["error"] == f"{folder / 'b.jpg'}: {message}"
    assert done.returncode == 2 and len(last["findings"]) == 14
    pipe = pipeline("chest-xray-findings", model=str(package), trust_remote_code=True)
    expected = pipe({"image": folder / "a.png", "age": 63, "sex": "F", "view_position": "AP"})
    assert {each["label"]: each["score"] for each in first["findings"]} == pytest.approx(
        {each["label"]: each["score"] for each in expected}, abs=1e-6
    )


def test_maps_are_pictures_of_the_positive_findings(run_python, package, folder, tmp_path):
    low = tmp_path / "package"
    shutil.copytree(package, low)
    (low / "thresholds.json").write_text(json.dumps({**dict.fromkeys(FINDINGS, 1.0), "Mass": 0.0, "Hernia": 0.0}))
    done = predict(run_python, low, folder / "a.png", "--maps", tmp_path / "maps")
    assert done.returncode == 0, done.stderr[-2000:]
    pictures = sorted((tmp_path / "maps").iterdir())
    assert [path.name.rsplit("_", 1)[1] for path in pictures] == ["Hernia.png", "Mass.png"]
    with Image.open(pictures[0]) as picture, Image.open(folder / "a.png") as radiograph:
        assert picture.size == radiograph.size and picture.mode == "RGB"


@pytest.fixture
def two_exports(tmp_path, drawing) -> Path:
    """Folders of two patients, with the same name for a file in each, and files named by their UIDs."""
    dicom_file = stored(make_dicom(drawing.astype(np.uint16) * 16))
    for patient in "ab":
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "IM1.dcm").write_bytes(dicom_file)
    for number in (1, 2):
        (tmp_path / "a" / f"1.2.840.113.5.{number}").write_bytes(dicom_file)
    (tmp_path / "a" / "letter.v2").write_text("Dear colleague")
    return tmp_path


def test_dicom_files_are_known_by_what_is_in_them(two_exports):
    (two_exports / "a" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (two_exports / "a" / "IM2.dcm.gz").write_bytes(b"")
    found = find_radiographs([str(two_exports / "a")])
    names = [path.name for path in found.radiographs]
    assert names == ["1.2.840.113.5.1", "1.2.840.113.5.2", "IM1.dcm", "IM2.dcm.gz"]
    assert [path.name for path in found.skipped] == ["DICOMDIR", "letter.v2"]


def test_every_radiograph_has_maps_of_its_own(two_exports, package, drawing):
    Image.fromarray(drawing).save(two_exports / "a" / "IM1.png")
    inputs = [Input(path) for path in find_radiographs([str(two_exports / "a")]).radiographs]
    engine = load_engine(str(package))
    predictions = list(save_maps(predict_inputs(engine, inputs, maps=True), engine, two_exports / "maps"))
    positive = sum(finding["positive"] for each in predictions for finding in each.findings)
    names = [path.name for path in (two_exports / "maps").iterdir()]
    assert len(inputs) == 4 and positive >= 4 and len(names) == positive
    assert any("1.2.840.113.5.1_" in name for name in names) and not any("IM1.dcm" in name for name in names)


def table_of(patients: dict[str, dict[str, str]]) -> PatientTable:
    rows = {name: PatientRow(number, patient) for number, (name, patient) in enumerate(patients.items(), start=2)}
    return PatientTable(Path("patients.csv"), rows)


@pytest.mark.parametrize(
    "name",
    ["ward/films/a.png", "films/a.png", "./films/a", "films\\a.png", "a.png", "a", "C:\\export\\a.png", "/gone/a.png"],
)
def test_a_row_is_found_however_it_names_its_file(tmp_path, name):
    film = tmp_path / "ward" / "films" / "a.png"
    table = PatientTable(tmp_path / "ward" / "patients.csv", {name: PatientRow(2, {"age": "63"})})
    for path in (film, Path(os.path.relpath(film))):
        (entry,), unused = match_patients([path], table)
        assert entry == Input(path, {"age": "63"}, "patients.csv, row 2") and not unused
    (entry,), unused = match_patients([tmp_path / "other" / "b.png"], table)
    assert not entry.patient and unused == [name]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_a_table_in_any_encoding_with_any_separator(tmp_path, encoding, delimiter):
    table = tmp_path / "patients.csv"
    lines = ["IMAGE|Patient Age|Größe|SEX", "Müller.png|063Y|x|Female", "b.png|||M"]
    table.write_bytes("\r\n".join(lines).replace("|", delimiter).encode(encoding))
    rows = read_patients(table).rows
    assert {name: row.patient for name, row in rows.items()} == {
        "Müller.png": {"age": "063Y", "sex": "Female"},
        "b.png": {"sex": "M"},
    }


def test_the_table_of_the_nih_of_2017_as_it_is(tmp_path):
    table = tmp_path / "Data_Entry_2017.csv"
    table.write_text(
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
        "00000001_000.png,Mass|Nodule,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n"
    )
    (row,) = read_patients(table).rows.values()
    assert Patient(**row.patient) == Patient(58, "M", "PA")


def test_a_row_that_two_files_could_take_is_refused(two_exports):
    files = [two_exports / patient / "IM1.dcm" for patient in "ab"]
    for name in ("IM1.dcm", "IM1"):
        with pytest.raises(InputError) as caught:
            match_patients(files, table_of({name: {"age": "63"}}))
        line = str(caught.value)
        assert f"the row {name} of" in line and all(str(file) in line for file in files) and "\n" not in line
    inputs, unused = match_patients(files, table_of({str(file): {"age": str(age)} for age, file in enumerate(files)}))
    assert [entry.patient for entry in inputs] == [{"age": "0"}, {"age": "1"}] and not unused
    inputs, _ = match_patients(files, table_of({str(files[0]): {"age": "63"}, "IM1": {"age": "8"}}))
    assert [entry.patient["age"] for entry in inputs] == ["63", "8"]
    uids = [two_exports / "a" / f"1.2.840.113.5.{number}" for number in (1, 2)]
    inputs, unused = match_patients(uids, table_of({"1.2.840.113.5": {"age": "63"}, uids[1].name: {"age": "8"}}))
    assert [entry.patient for entry in inputs] == [{}, {"age": "8"}] and unused == ["1.2.840.113.5"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["empty"], "the folder holds no radiographs"),
        (["*.xyz"], "matches no file"),
        (["a.png", "--patients", "none.csv"], "none.csv: cannot be read as a table"),
        (["a.png", "--patients", "wrong.csv"], "wrong.csv: needs a column 'image'"),
        (["a.png", "--patients", "wrong.csv", "--age", "3"], "give either --patients or"),
        (["a.png", "--operating-point", "best"], "no operating point is called 'best'"),
        (["a.png", "--format", "parquet"], "name a file with --output"),
        (["a.png", "--output", "nowhere/x.csv"], "nowhere/x.csv: cannot be written"),
        (
            ["a.png", "--output", "x.csv", "--maps", "wrong.csv"],
            "predict: wrong.csv: maps cannot be written (File exists)",
        ),
    ],
)
def test_wrong_usage_is_one_clear_line_and_exit_code_2(package, folder, tmp_path, monkeypatch, capsys, arguments, said):
    (tmp_path / "empty").mkdir()
    shutil.copy(folder / "a.png", tmp_path)
    (tmp_path / "wrong.csv").write_text("name,age\na.png,3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["predict.py", *arguments, "--model", str(package)])
    try:
        code = main()
    except SystemExit as stopped:  # argparse's own way out
        code = stopped.code
    assert code == 2 and said in capsys.readouterr().err


def test_a_model_that_is_not_there_is_named(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["predict.py", str(folder / "a.png"), "--model", str(tmp_path / "none")])
    assert main() == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
