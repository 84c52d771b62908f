"""Parquet in every spelling: prepared shards, the Hub's data set, its mirrors."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrfpn.data.preparing import prepare_image
from cxrfpn.data.schema import Box, Row, SourceError
from cxrfpn.data.shards import write_shard
from cxrfpn.data.sources import open_source

IMAGES = [b"first", b"second" * 1000, b"third"]
EXPECTED = [
    Row(IMAGES[0], "00000001_000", "1", 58.0, "M", "PA", ("Cardiomegaly", "Emphysema"), (), "train", 5),
    Row(IMAGES[1], "00000002_000", "2", None, "F", "AP", (), (), "train", 0),
    Row(IMAGES[2], "00000003_000", "3", 81.0, None, None, ("Pleural_Thickening",), (), "train", 9),
]


def write(path: Path, columns: dict[str, list], features: dict[str, Any] | None = None, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **options)


def structs(images: list[bytes] = IMAGES) -> list[dict[str, Any]]:
    return [{"bytes": image, "path": f"0000000{row}_000.png"} for row, image in enumerate(images, start=1)]


def as_strings() -> tuple[dict[str, list], None]:
    """As timm/nih-chest-xray-14 has it where sex and view are strings."""
    return {
        "image": structs(),
        "labels": [[9, 1], [], [3]],  # of an order of their own: only the names may be believed
        "label_names": [["Emphysema", "Cardiomegaly"], [], ["Pleural_Thickening"]],
        "image_id": ["00000001_000", "00000002_000", "00000003_000"],
        "fold": [5, 0, 9],
        "patient_id": [1, 2, 3],
        "patient_age": [58, 414, 81],
        "patient_sex": ["M", "F", None],
        "view_position": ["PA", "AP", None],
    }, None


def as_class_labels() -> tuple[dict[str, list], dict[str, Any]]:
    """The same with everything as ClassLabels, in an order that is not ours."""

    def label(*names: str) -> dict[str, Any]:
        return {"names": list(names), "_type": "ClassLabel"}

    columns = as_strings()[0]
    del columns["label_names"]
    columns |= {"labels": [[2, 1], [], [0]], "patient_sex": [1, 0, None], "view_position": [1, 0, None]}
    findings = label("Pleural_Thickening", "Emphysema", "Cardiomegaly")
    return columns, {
        "labels": {"feature": findings, "_type": "List"},
        "patient_sex": label("Female", "Male"),
        "view_position": label("AP", "PA"),
    }


def as_a_mirror() -> tuple[dict[str, list], None]:
    """Joined labels, plain binary images, other names for the columns."""
    return {
        "image": IMAGES,
        "filename": ["00000001_000.png", "00000002_000.png", "00000003_000.png"],
        "labels": ["Cardiomegaly|Emphysema", "No Finding", "Pleural_Thickening"],
        "Patient Age": ["058Y", "", "081Y"],
        "Patient Gender": ["M", "F", ""],
        "View Position": ["PA", "AP", ""],
        "fold": [5, 0, 9],
    }, None


@pytest.mark.parametrize("form", [as_strings, as_class_labels, as_a_mirror])
def test_every_spelling_gives_the_same_rows(tmp_path: Path, form: Any) -> None:
    write(tmp_path / "data" / "train-00000-of-00001.parquet", *form())
    source = pickle.loads(pickle.dumps(open_source(f"parquet:{tmp_path}")))
    assert source.parts() == ["data/train-00000-of-00001.parquet"]
    assert list(source.rows(source.parts()[0])) == EXPECTED
    metadata = source.metadata()
    assert metadata["findings"].tolist() == [row.findings for row in EXPECTED]
    assert metadata["age"].isna().tolist() == [False, True, False]


def test_without_an_id_the_path_of_the_image_names_it(tmp_path: Path) -> None:
    columns = as_strings()[0]
    del columns["image_id"], columns["patient_id"]
    write(tmp_path / "train-0.parquet", columns)
    assert list(open_source(f"parquet:{tmp_path}").rows("train-0.parquet")) == EXPECTED


def test_prepared_shards_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [replace(row, split="test") for row in EXPECTED]
    rows[0] = replace(rows[0], boxes=(Box("Cardiomegaly", 0.25, 0.5, 0.125, 0.5),))
    rows[2] = replace(rows[2], split=None, fold=None)
    (tmp_path / "data").mkdir()
    write_shard(tmp_path / "data" / "shard-00000-of-00002.parquet", [(row, 64) for row in rows], {})
    manifest = tmp_path / "prepare.json"
    manifest.write_text(json.dumps({"parts": ["one"]}))
    source = open_source(f"parquet:{tmp_path}")
    assert [row for part in source.parts() for row in source.rows(part)] == rows
    manifest.write_text(json.dumps({"parts": ["one", "two"]}))
    with pytest.raises(SourceError, match="1 of 2 shards"):
        source.metadata()
    manifest.write_text("{}")
    with pytest.raises(SourceError, match="prepare.json: was not written by prepare.py"):
        source.metadata()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"label_names": [["Mass"], ["Masses"], []]},
            "train.parquet, row 2, image 00000002_000: unknown finding 'Masses'",
        ),
        ({"label_names": [["Mass"], None, []]}, "row 2, image 00000002_000: the findings are missing"),
        ({"image_id": ["a", "b", "a"]}, "train.parquet, row 3: image a .* train.parquet, row 1"),
        ({"label_names": [[1], [2], []]}, "row 1, image 00000001_000: the finding 1 is a number"),
    ],
)
def test_bad_rows_are_refused_by_file_and_row(tmp_path: Path, change: dict[str, list], words: str) -> None:
    write(tmp_path / "train.parquet", as_strings()[0] | change)
    with pytest.raises(SourceError, match=words):
        open_source(f"parquet:{tmp_path}").metadata()


def test_a_patient_in_train_and_test_is_refused(tmp_path: Path) -> None:
    columns = as_strings()[0]
    write(tmp_path / "train-0.parquet", columns)
    write(tmp_path / "test-0.parquet", columns | {"image_id": ["x", "y", "z"], "patient_id": [8, 9, 3]})
    with pytest.raises(SourceError, match="train-0.parquet, row 3: patient 3 is in train here and in test in test-0"):
        open_source(f"parquet:{tmp_path}").metadata()


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet", None])
def test_a_damaged_file_or_an_empty_folder_gets_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(f"parquet:{tmp_path}").metadata()
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_image_is_an_empty_file_and_the_others_are_read(tmp_path: Path) -> None:
    columns = as_strings()[0]
    columns["image"][1] = {"bytes": None, "path": "somewhere.png"}
    write(tmp_path / "train.parquet", columns)
    rows = list(open_source(f"parquet:{tmp_path}").rows("train.parquet"))
    assert [bool(row.image) for row in rows] == [True, False, True]
    with pytest.raises(ValueError, match=f"{rows[1].image_id}: the file is empty"):
        prepare_image(rows[1].image, rows[1].image_id, 8)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    columns = as_strings()[0]
    write(tmp_path / "train.parquet", {"image": IMAGES, "labels": [[]] * 3})
    with pytest.raises(SourceError, match="no column image_id"):
        open_source(f"parquet:{tmp_path}").metadata()
    del columns["label_names"], columns["labels"]
    write(tmp_path / "train.parquet", columns)
    with pytest.raises(SourceError, match="no column of findings"):
        open_source(f"parquet:{tmp_path}").metadata()


def test_findings_may_be_missing_where_none_are_read(tmp_path: Path) -> None:
    columns = as_strings()[0]
    del columns["label_names"], columns["labels"]
    write(tmp_path / "train.parquet", columns)
    rows = open_source(f"parquet:{tmp_path}", without=("findings",)).rows("train.parquet")
    assert list(rows) == [replace(row, findings=()) for row in EXPECTED]


def test_images_that_name_no_patient_are_told_of_once(tmp_path: Path, caplog) -> None:
    columns = as_strings()[0]
    for number in range(2):
        write(tmp_path / f"{number}.parquet", columns | {"image_id": [f"{number}{row}" for row in "abc"]})
    open_source(f"parquet:{tmp_path}").metadata()
    assert not caplog.messages
    for number in range(2):
        names = [f"{number}{row}" for row in "abc"]
        write(tmp_path / f"{number}.parquet", columns | {"image_id": names, "patient_id": [None, "P", None]})
    open_source(f"parquet:{tmp_path}").metadata()
    (said,) = caplog.messages
    assert said.startswith(f"parquet:{tmp_path}: 4 of 6 images name no patient")
    open_source(f"unlabelled:{tmp_path}").metadata()  # which is for training only, and asks for none
    assert len(caplog.messages) == 1


def test_files_named_by_their_split_tell_it(tmp_path: Path) -> None:
    columns = {name: values[:1] for name, values in as_strings()[0].items() if name not in ("fold", "patient_id")}
    for number, split in enumerate(("train", "validation", "test"), start=1):
        write(tmp_path / "data" / f"{split}-0.parquet", columns | {"image_id": [f"{number:08}_000"]})
    metadata = open_source(f"parquet:{tmp_path}").metadata().set_index("image_id").sort_index()
    assert metadata["split"].tolist() == ["train", "train", "test"]
    assert metadata["fold"].tolist()[:2] == [1, 0]
    (tmp_path / "data" / "validation-0.parquet").unlink()
    assert open_source(f"parquet:{tmp_path}").metadata()["fold"].isna().all()


def test_nih_mini_as_its_readme_counts_it(nih_mini: Path) -> None:
    source = open_source(f"parquet:{nih_mini}")
    metadata = source.metadata()
    assert len(metadata) == 10_981
    test = metadata[metadata["split"] == "test"]
    assert (len(test), test["patient_id"].nunique()) == (1_412, 430)
    train = metadata[metadata["split"] == "train"]
    assert sum(names == () for names in train["findings"]) == 6_233
    assert sum("Hernia" in names for names in train["findings"]) == 9
    boxes = [row.boxes for part in source.parts() if "test" in part for row in source.rows(part)]
    assert sum(map(len, boxes)) == 464
    assert any(box.finding == "Infiltration" for row in boxes for box in row)
    assert all(box.x >= 0 and box.x + box.width <= 1.01 for row in boxes for box in row)


def test_unlabelled_radiographs_are_read_without_a_word_of_what_stands_beside_them(tmp_path: Path) -> None:
    columns = as_strings()[0] | {"label": ["Normal", "Pneumonia", "?"], "split": ["test", "nonsense", "train"]}
    write(tmp_path / "test-0.parquet", columns)
    source = open_source(f"unlabelled:{tmp_path}")
    expected = [
        Row(image, row.image_id, row.patient_id, None, None, None, (), (), "train", None)
        for image, row in zip(IMAGES, EXPECTED, strict=True)
    ]
    assert list(source.rows("test-0.parquet")) == expected
