"""Tables in any spelling come out in the one schema; what no table may hold is refused with its place."""

import numpy as np
import pandas as pd
import pytest

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import METADATA_COLUMNS, SourceError
from cxrfpn.data.sources import open_source
from cxrfpn.data.sources.boxes import read_boxes
from cxrfpn.data.sources.columns import checked, make_row, read_findings, spelled, tabulate
from cxrfpn.data.sources.patient_ids import read_patient_id


def table_of(**columns: list) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    ids = [f"{row:08}_000.png" for row in range(count)]
    return tabulate({"image_id": ids, "findings": ["No Finding"] * count, **columns}, "table.csv", first_row=2)


def test_the_patient_is_read_in_any_form_and_a_lateral_row_stops_nothing() -> None:
    table = table_of(
        age=["058Y", 414, "6 M", pd.NA], sex=["Male", "O", "f", None], view_position=["AP SUPINE", "PA", "LL", None]
    )
    assert table["age"].fillna(-1).tolist() == [58, -1, 0.5, -1]
    assert table["sex"].fillna("").tolist() == ["M", "", "F", ""]
    assert table["view_position"].fillna("").tolist() == ["AP", "PA", "LATERAL", ""]


@pytest.mark.parametrize(
    ("value", "findings"),
    [
        ("Mass|Effusion", ("Effusion", "Mass")),
        (["Pleural_Thickening"], ("Pleural_Thickening",)),
        ("pleural thickening", ("Pleural_Thickening",)),
        ("Infiltrate", ("Infiltration",)),
        ("No Finding", ()),
        (["No Finding"], ()),
        ([], ()),
        ("Mass|Mass", ("Mass",)),
    ],
)
def test_findings_in_any_form_are_names_in_their_order(value: object, findings: tuple[str, ...]) -> None:
    assert read_findings(value) == findings


@pytest.mark.parametrize("value", ["", None, "Mass|Nodul", [3], "No Finding|Mass", "0"])
def test_findings_that_say_nothing_certain_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="missing|unknown finding|does not name|at once"):
        read_findings(value)


def test_every_finding_is_known_by_its_own_name() -> None:
    assert read_findings("|".join(reversed(FINDINGS))) == FINDINGS


def test_columns_are_found_in_the_spellings_of_the_nih_and_of_its_mirrors() -> None:
    nih = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender"]
    nih.append("View Position")
    assert spelled(nih) == {
        "image_id": "Image Index",
        "patient_id": "Patient ID",
        "age": "Patient Age",
        "sex": "Patient Gender",
        "view_position": "View Position",
        "findings": "Finding Labels",
    }
    assert spelled(["labels", "label_names", "patient_sex"]) == {"findings": "label_names", "sex": "patient_sex"}


def test_what_is_unknown_is_missing_in_the_table_and_none_in_a_row() -> None:
    table = checked(table_of(age=["58", ""], sex=["female", "U"], view_position=["ap", None], fold=[None, 3]))
    assert tuple(table.columns) == METADATA_COLUMNS
    assert table[["age", "sex", "view_position", "fold"]].isna().to_numpy().tolist() == [
        [False, False, False, True],
        [True, True, True, False],
    ]
    first, second = (make_row(record, b"pixels") for record in table.itertuples(index=False))
    assert (first.age, first.sex, first.view_position, first.split, first.fold) == (58.0, "F", "AP", None, None)
    assert (second.age, second.sex, second.view_position, second.fold) == (None, None, None, 3)
    assert isinstance(second.fold, int)


def test_the_patient_is_told_by_the_file_name_where_no_column_tells_it() -> None:
    raw = {"image_id": ["00000013_004.png", "images/00000013_005.jpg", "chest.png"], "findings": ["Mass"] * 3}
    assert tabulate(raw, "t")["patient_id"].tolist() == ["13", "13", "chest"]
    assert tabulate({**raw, "patient_id": [7, 8.0, "9"]}, "t")["patient_id"].tolist() == ["7", "8", "9"]


@pytest.mark.parametrize("spelling", [3, 3.0, "3", "3.0", "00000003", " 003 ", np.int64(3)])
def test_a_patient_is_the_same_in_any_spelling(spelling: object) -> None:
    by_name = tabulate({"image_id": ["00000003_001.png"], "findings": [[]]}, "nih")["patient_id"]
    by_column = tabulate({"image_id": ["film.png"], "findings": [[]], "patient_id": [spelling]}, "ward.csv")
    assert by_name.tolist() == by_column["patient_id"].tolist() == ["3"]


@pytest.mark.parametrize(("given", "kept"), [("0", "0"), ("000", "0"), ("P03", "P03"), ("1.5", "1.5"), ("3-0", "3-0")])
def test_what_is_no_whole_number_is_kept_as_it_is(given: str, kept: str) -> None:
    assert read_patient_id(given) == kept


def test_a_patient_that_contradicts_an_nih_file_name_is_warned_of(caplog) -> None:
    raw = {"findings": [[]] * 3, "image_id": ["00000003_001", "00000004_000", "20240101_001"]}
    checked(tabulate({**raw, "patient_id": ["00000003", "4", "P7"]}, "ward.csv"))
    assert not caplog.records  # a date is no patient of the NIH's
    checked(tabulate({**raw, "patient_id": ["00000003", "5", "P7"]}, "ward.csv", first_row=2))
    assert "ward.csv, row 3: image 00000004_000 belongs to patient 4 by its name and to patient 5" in caplog.text


def test_validation_is_fold_0_of_train() -> None:
    table = table_of(split=["train", "train", "validation", "test", ""], fold=[4, None, None, None, None])
    assert table["split"].tolist()[:4] == ["train", "train", "train", "test"]
    assert table["split"].isna().tolist() == [False, False, False, False, True]
    assert table["fold"].tolist()[:3] == [4, 1, 0]
    assert table_of(split=["train", "test"])["fold"].isna().all()  # the protocol may choose a validation set


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("findings", "Mass|Nodul", "table.csv, row 3, image 00000001_000: unknown finding 'Nodul'"),
        ("age", "old", "row 3, image 00000001_000: age 'old'"),
        ("sex", "1", "row 3, image 00000001_000: sex '1'"),
        ("view_position", "SEPIA", "row 3, image 00000001_000: view position 'SEPIA'"),
        ("split", "traim", "row 3, image 00000001_000: split 'traim'"),
        ("fold", "x", "row 3, image 00000001_000: fold 'x'"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_by_file_row_and_image(column: str, value: str, words: str) -> None:
    good = {"findings": "Mass", "age": "5", "sex": "M", "view_position": "PA", "split": "train", "fold": "1"}[column]
    with pytest.raises(SourceError, match=words):
        table_of(**{column: [good, value, value]})


def test_an_image_listed_twice_is_refused_with_both_places() -> None:
    two = pd.concat([table_of(age=[1, 2]), tabulate({"image_id": ["00000001_000"], "findings": [[]]}, "b.parquet")])
    with pytest.raises(SourceError, match=r"b.parquet, row 1: image 00000001_000 .* table.csv, row 3"):
        checked(two)


@pytest.mark.parametrize(
    ("splits", "folds", "sides"),
    [
        (["train", "test", "train"], [3, 3, 3], "train here and in test in table.csv, row 3"),
        (["train", "train", "train"], [3, 0, 3], "train here and in validation in table.csv, row 3"),
    ],
)
def test_a_patient_on_both_sides_is_refused_with_both_places(splits: list, folds: list, sides: str) -> None:
    with pytest.raises(SourceError, match=f"row 4: patient 7 is in {sides}"):
        checked(table_of(patient_id=[5, 7, 7], split=splits, fold=folds))
    assert len(checked(table_of(patient_id=[5, 7, 7], split=["test", "train", "train"], fold=[0, 1, 2]))) == 3


def test_boxes_are_fractions_of_the_image(tmp_path) -> None:
    path = tmp_path / "BBox_List_2017.csv"
    path.write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000013_005.png,Infiltrate,256,512,128.0,64.0,,,\n00000013_005.png,Mass,0,0,1024,1024,,,\n"
    )
    boxes = read_boxes(path, path.name)["00000013_005"]
    assert [box.finding for box in boxes] == ["Infiltration", "Mass"]
    assert (boxes[0].x, boxes[0].y, boxes[0].width, boxes[0].height) == (0.25, 0.5, 0.125, 0.0625)


@pytest.mark.parametrize("line", ["00000013_005.png,Nodul,1,2,3,4", "a.png,Mass,1,2,x,4", "a.png,Mass,1,2,0,4"])
def test_a_box_that_marks_nothing_known_is_refused_by_its_row(tmp_path, line: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(f"image,finding,x,y,w,h\na.png,Mass,1,2,3,4\n{line}\n")
    with pytest.raises(SourceError, match="boxes.csv, row 3"):
        read_boxes(path, path.name)


@pytest.mark.parametrize("name", ["", "nih-chest", "zip:folder", "nih:", "a/b/c", "phantom:many", "parquet"])
def test_a_source_of_no_known_form_is_refused(name: str) -> None:
    with pytest.raises(SourceError):
        open_source(name)
