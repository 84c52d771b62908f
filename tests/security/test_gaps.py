"""What else is handed to the scripts: tables that are no files, packages and parquet that lie, links in the way."""

import gzip
import io
import json
import os
import shutil
import struct
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from configuration_cxrfpn import FINDINGS
from cxrfpn import table_text
from cxrfpn.data.schema import SourceError
from cxrfpn.data.sources import open_source
from cxrfpn.prediction.inputs import InputError, read_patients
from cxrfpn.publishing.contents import without_folders
from loading_cxrfpn import load_pipeline
from patient_cxrfpn import Patient
from predict import main
from thresholds_cxrfpn import PackageError, Thresholds, ThresholdsError


@pytest.mark.parametrize("age", [True, False, [50], {"years": 50}, b"50"])
def test_an_age_that_is_no_number_is_refused(age):
    with pytest.raises(ValueError, match="is not a number of years"):
        Patient(age=age)


def test_a_pipe_is_no_table(tmp_path):
    """Nobody writes to it: whoever opened it would wait without end."""
    os.mkfifo(tmp_path / "patients.csv")
    with pytest.raises(InputError, match="is a pipe or a device"):
        read_patients(tmp_path / "patients.csv")
    with pytest.raises(SourceError, match="is a pipe or a device"):
        open_source(f"csv:{tmp_path / 'patients.csv'}").metadata()


def test_a_table_that_inflates_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_text, "MAX_BYTES", 2**20)
    (tmp_path / "patients.csv.gz").write_bytes(gzip.compress(bytes(2**24)))
    with pytest.raises(InputError, match="inflates to more than 1 MB"):
        read_patients(tmp_path / "patients.csv.gz")
    (tmp_path / "patients.csv").write_bytes(bytes(2**20 + 1))
    with pytest.raises(InputError, match="is larger than 1 MB"):
        read_patients(tmp_path / "patients.csv")


def test_a_published_record_names_no_local_folder():
    text = """command      train.py recipes/nih.yaml --source nih:/home/alice/films --output-dir ~/runs/ward
prepared     C:\\Users\\alice\\prepared, 12 images; source: 'parquet:../shared/alice/nih-mini'
source: org/name, https://example.org/a/b, learning rate 1/3"""
    assert (
        without_folders(text)
        == """command      train.py recipes/nih.yaml --source nih:films --output-dir ward
prepared     prepared, 12 images; source: 'parquet:nih-mini'
source: org/name, https://example.org/a/b, learning rate 1/3"""
    )


@pytest.mark.parametrize("threshold", [1e308, -1e308, float("nan"), True, "0.5", None])
def test_a_threshold_that_is_no_score_is_refused(threshold):
    with pytest.raises(ThresholdsError, match="a threshold lies in 0 to 1"):
        Thresholds(dict.fromkeys(FINDINGS, 0.5) | {"Mass": threshold})


@pytest.mark.parametrize("slope", [1e308, float("inf"), -1e308])
def test_a_calibration_without_bounds_is_refused(slope):
    points = {"operating_points": {"a": dict.fromkeys(FINDINGS, 0.5)}}
    with pytest.raises(ThresholdsError, match="calibration of Mass"):
        Thresholds(points | {"calibration": {"Mass": {"slope": slope, "intercept": 0}}})


@pytest.mark.parametrize("length", [2**63, 2**40, 2**27])
def test_weights_with_a_huge_header_are_refused_in_one_line(package, tmp_path, length):
    folder = shutil.copytree(package, tmp_path / "package")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{" * 1000)
    with pytest.raises(PackageError) as caught:
        load_pipeline(str(folder))
    assert str(caught.value).startswith(str(folder)) and str(caught.value).isprintable()


def test_mutated_parquet_is_read_or_refused_in_one_line(tmp_path):
    """Pages, footer and the JSON in the schema."""
    columns = {"image": [b"no picture"] * 20, "image_id": [f"i{index}" for index in range(20)], "labels": [[0]] * 20}
    features = {"labels": [{"names": ["Mass"], "_type": "ClassLabel"}]}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = io.BytesIO()
    pq.write_table(table, file)
    sound, random = file.getvalue(), np.random.default_rng(25)
    outcomes = set()
    for _ in range(80):
        data = bytearray(sound)
        for place in random.integers(4, len(data), 3):
            data[place] = random.integers(0, 256)
        (tmp_path / "part.parquet").write_bytes(data)
        try:
            source = open_source(f"parquet:{tmp_path}")
            outcomes.add(len([row for part in source.parts() for row in source.rows(part)]))
        except SourceError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert {20, "refused"} <= outcomes


@pytest.fixture
def save_maps(package, tmp_path, drawing, monkeypatch):
    """Call predict.py --maps on one film of which every finding is positive; gives the exit code."""
    folder = shutil.copytree(package, tmp_path / "low")
    (folder / "thresholds.json").write_text(json.dumps(dict.fromkeys(FINDINGS, 0.0)))
    Image.fromarray(drawing).save(tmp_path / "film.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["predict.py", "film.png", "--model", str(folder), "--maps", "maps"])
    return main


def test_maps_in_a_folder_that_exists_follow_no_link_and_keep_other_files(save_maps, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    (tmp_path / "precious").write_text("kept")
    (maps / "film_Mass.png").symlink_to(tmp_path / "precious")
    (maps / "notes.txt").write_text("kept")
    assert save_maps() == 0
    assert (tmp_path / "precious").read_text() == (maps / "notes.txt").read_text() == "kept"
    assert not (maps / "film_Mass.png").is_symlink() and len(list(maps.iterdir())) == 15


def test_maps_in_the_place_of_a_file_are_refused(save_maps, tmp_path, capsys):
    (tmp_path / "maps").write_text("a file")
    assert save_maps() == 2
    assert "maps: maps cannot be written" in capsys.readouterr().err
