"""predict.py as a user runs it: a real process, real files, its output and its exit code."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import pipeline

from configuration_cxrfpn import FINDINGS
from predict import main


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
            assert record["error"].endswith("not an image that can be read (PNG, JPEG, WebP, TIFF, BMP or DICOM)")
        else:
            assert sorted(each["label"] for each in record["findings"]) == sorted(FINDINGS)
            assert set(record["findings"][0]) == {"label", "score", "probability", "threshold", "positive"}
    assert "1 of 4 could not be predicted" in done.stderr and "Traceback" not in done.stderr


def test_the_forms_agree(run_python, package, folder, tmp_path):
    image = folder / "a.png"
    told = ["--age", 63, "--sex", "F", "--view-position", "AP"]
    table = predict(run_python, package, image, *told)
    record = json.loads(predict(run_python, package, image, *told, "--format", "json").stdout)
    scores = {each["label"]: each["score"] for each in record["findings"]}
    assert table.returncode == 0 and table.stdout.startswith(str(image))
    for name in FINDINGS:
        assert f"{name:<20}{scores[name]:>7.3f}" in table.stdout
    (row,) = csv.DictReader(io.StringIO(predict(run_python, package, image, *told, "--format", "csv").stdout))
    assert {name: float(row[name]) for name in FINDINGS} == pytest.approx(scores)
    assert row["image"] == str(image)
    assert row["positive"] == "|".join(each["label"] for each in record["findings"] if each["positive"])
    output = tmp_path / "findings.parquet"
    done = predict(run_python, package, image, *told, "--format", "parquet", "--output", output)
    assert done.returncode == 0 and f"written: {output}" in done.stderr
    (row,) = pq.read_table(output).to_pylist()
    assert {name: row[name] for name in FINDINGS} == pytest.approx(scores)
    assert [path.name for path in tmp_path.iterdir()] == ["findings.parquet"]


def test_a_table_of_patients(run_python, package, folder, tmp_path):
    """A row matches by file name or stem; an impossible patient is its own file's error; what is left over is said."""
    table = tmp_path / "patients.csv"
    table.write_text(
        "Image Index,Patient Age,Patient Gender,View Position\na.png,63,F,AP\nb,414,M,\nghost.png,1,M,PA\n"
    )
    done = predict(run_python, package, folder / "**" / "*.[pjt]*[gf]", "--patients", table, "--format", "json")
    assert "2 files have no row" in done.stderr and "1 of its rows have no file" in done.stderr
    first, second, _, last = (json.loads(line) for line in done.stdout.splitlines())
    assert second["error"] == f"{folder / 'b.jpg'}: age '414' is outside 0 to 120 years; leave it out if it is unknown"
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
