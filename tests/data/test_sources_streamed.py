"""What `datasets` opens is a source: image folders, JSON, saved data sets, and the Hub's mirrors of ChestX-ray14."""

import json
import pickle
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value

from cxrfpn.choices import columns_from
from cxrfpn.data.schema import Row, Source, SourceError
from cxrfpn.data.sources import open_source
from tests.hubs.loopback import LoopbackHub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as loopback:
        loopback.take_over(monkeypatch)
        yield loopback


def rows_of(source: Source) -> list[Row]:
    source = pickle.loads(pickle.dumps(source))
    metadata = source.metadata()
    rows = [row for part in source.parts() for row in source.rows(part)]
    assert metadata["image_id"].tolist() == [row.image_id for row in rows]
    assert metadata["findings"].tolist() == [row.findings for row in rows]
    wanted = {rows[-1].image_id}
    assert [row for part in source.parts() for row in source.rows(part, wanted)] == rows[-1:]
    return rows


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_folders_named_by_findings(tmp_path: Path) -> None:
    for name in ("train/Mass/a.png", "train/normal/a.png", "test/Mass/b.png", "test/normal/c.png"):
        write(tmp_path / name, name.encode())
    rows = rows_of(open_source(f"imagefolder:{tmp_path}"))
    assert sorted((row.image.decode(), row.image_id, row.findings, row.split) for row in rows) == [
        ("test/Mass/b.png", "test/Mass/b", ("Mass",), "test"),
        ("test/normal/c.png", "test/normal/c", (), "test"),
        ("train/Mass/a.png", "train/Mass/a", ("Mass",), "train"),
        ("train/normal/a.png", "train/normal/a", (), "train"),
    ]


def test_a_folder_with_a_table_of_0_and_1(tmp_path: Path) -> None:
    table = "file_name,Mass,Pleural Effusion,Edema,patient,Sex\nx/1.png,1,0,1,A,F\nx/2.png,0,1,0,B,\n"
    write(tmp_path / "metadata.csv", table.replace("Pleural Effusion", "effusion").encode())
    for name in ("x/1.png", "x/2.png"):
        write(tmp_path / name, name.encode())
    one, two = rows_of(open_source(f"imagefolder:{tmp_path}"))
    assert (one.image, one.image_id, one.patient_id, one.findings) == (b"x/1.png", "x/1", "A", ("Mass", "Edema"))
    assert (two.sex, two.findings, two.split) == (None, ("Effusion",), None)
    assert rows_of(open_source(f"imagefolder:{tmp_path}", columns={"patient_id": "sex"}))[0].patient_id == "F"


def test_json_with_columns_of_other_names(tmp_path: Path) -> None:
    rows = [{"scan": "a.png", "dx": ["Mass"], "who": 7}, {"scan": "sub/b.png", "dx": [], "who": 8}]
    write(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, rows)).encode())
    write(tmp_path / "a.png", b"a")
    write(tmp_path / "sub" / "b.png", b"b")
    name = f"json:{tmp_path / 'rows.jsonl'}"
    one, two = rows_of(open_source(name, columns=columns_from("image=scan,findings=dx,patient_id=who")))
    assert (one.image, one.image_id, one.patient_id, one.findings) == (b"a", "a", "7", ("Mass",))
    assert (two.image, two.image_id, two.findings) == (b"b", "sub/b", ())
    with pytest.raises(SourceError, match="no column of findings|no column image"):
        open_source(name).metadata()
    with pytest.raises(SourceError, match="no column 'nothing' for findings; the columns are"):
        open_source(name, columns={"findings": "nothing", "image": "scan"}).metadata()


def test_a_saved_data_set(tmp_path: Path) -> None:
    features = Features(
        {"xray": Image(), "label": List(ClassLabel(names=["Edema", "Mass"])), "image_id": Value("string")}
    )
    content = {"xray": [{"bytes": b"one", "path": None}], "label": [[1, 0]], "image_id": ["00000013_004.png"]}
    parts = {split: Dataset.from_dict(content, features) for split in ("train", "test")}
    parts["test"] = Dataset.from_dict({**content, "image_id": ["00000014_000.png"]}, features)
    DatasetDict(parts).save_to_disk(tmp_path / "saved")
    rows = rows_of(open_source(f"disk:{tmp_path / 'saved'}"))
    assert rows == [
        Row(b"one", "00000013_004", "13", None, None, None, ("Mass", "Edema"), (), "train"),
        Row(b"one", "00000014_000", "14", None, None, None, ("Mass", "Edema"), (), "test"),
    ]


def test_an_image_folder_on_the_hub(hub: LoopbackHub, tmp_path: Path) -> None:
    for name in ("train/Mass/a.png", "train/normal/b.png"):
        write(tmp_path / name, name.encode())
    hub.add("datasets", "someone/folder", tmp_path)
    rows = rows_of(open_source("someone/folder"))
    assert sorted((row.image, row.findings) for row in rows) == [
        (b"train/Mass/a.png", ("Mass",)),
        (b"train/normal/b.png", ()),
    ]


def test_paths_that_lead_out_of_a_data_set_are_refused(hub: LoopbackHub, tmp_path: Path) -> None:
    outside = write(tmp_path / "secret.png", b"of somebody else")
    for path in (str(outside), "../secret.png", f"file://{outside}"):
        write(tmp_path / "set" / "rows.jsonl", json.dumps({"image": path, "findings": ["Mass"]}).encode())
        hub.add("datasets", f"someone/json{len(path)}", tmp_path / "set")
        source = open_source(f"someone/json{len(path)}")
        with pytest.raises(SourceError):
            assert [row for part in source.parts() for row in source.rows(part)]


def parquet(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_the_mirror_with_a_random_split(hub: LoopbackHub, tmp_path: Path) -> None:
    """BahaaEldin0/NIH-Chest-Xray-14: lists with "No Finding", the NIH's own column names, patients on both sides."""
    for split, label in (("train", ["Mass", "Edema"]), ("test", ["No Finding"])):
        columns = {
            "image": [{"bytes": split.encode(), "path": None}],
            "label": [label],
            "Image Index": [f"00000005_00{len(split)}.png"],
            "Patient ID": [5],
            "Patient Age": [44],
            "Patient Gender": ["F"],
            "View Position": ["PA"],
        }
        parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", columns)
    hub.add("datasets", "BahaaEldin0/NIH-Chest-Xray-14", tmp_path)
    with pytest.raises(SourceError, match="patient 5 is in .* on one side of a split .--columns split= reads no split"):
        open_source("BahaaEldin0/NIH-Chest-Xray-14").metadata()
    test, train = rows_of(open_source("BahaaEldin0/NIH-Chest-Xray-14", columns={"split": ""}))
    assert (train.findings, train.patient_id, train.age, train.split) == (("Mass", "Edema"), "5", 44, None)
    assert test.findings == ()


def test_the_mirror_of_320_pixels(hub: LoopbackHub, tmp_path: Path) -> None:
    """arudaev/chest-xray-14-320: joined labels, and nothing of the patient but the NIH's file names."""
    for split, patient in (("train", 1), ("validation", 2), ("test", 3)):
        columns = {
            "image": [{"bytes": split.encode(), "path": None}],
            "labels": ["Mass|Edema" if patient == 1 else "No Finding"],
            "filename": [f"0000000{patient}_000.png"],
        }
        parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", columns)
    hub.add("datasets", "arudaev/chest-xray-14-320", tmp_path)
    rows = {row.image: row for row in rows_of(open_source("arudaev/chest-xray-14-320"))}
    assert [(row.patient_id, row.split, row.fold) for row in (rows[b"train"], rows[b"validation"], rows[b"test"])] == [
        ("1", "train", 1),
        ("2", "train", 0),
        ("3", "test", 1),
    ]
    assert rows[b"train"].findings == ("Mass", "Edema")


def test_a_data_set_with_a_script_names_the_one_to_take(hub: LoopbackHub, tmp_path: Path) -> None:
    write(tmp_path / "NIH-Chest-X-ray-dataset.py", b"import datasets")
    write(tmp_path / "data" / "images" / "images_001.zip", b"PK")
    hub.add("datasets", "alkzar90/NIH-Chest-X-ray-dataset", tmp_path)
    with pytest.raises(SourceError, match="is read by a script.*take .*timm/nih-chest-xray-14") as caught:
        open_source("alkzar90/NIH-Chest-X-ray-dataset")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["image", "image=a,colour=b"])
def test_columns_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not FIELD=COLUMN with a field of image, image_id"):
        columns_from(text)
