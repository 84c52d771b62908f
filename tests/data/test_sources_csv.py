"""A table of one's own, with whatever columns it has."""

import pickle
from pathlib import Path

import pytest

from cxrfpn.data.schema import SourceError
from cxrfpn.data.sources import open_source


def write(folder: Path, text: str, *images: str) -> str:
    """Write table.csv and its images; the name of the source."""
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).write_bytes(image.encode())
    (folder / "table.csv").write_text(text)
    return f"csv:{folder / 'table.csv'}"


def test_all_columns(tmp_path: Path) -> None:
    text = "Image,Patient,Age,Gender,View,Findings,Split\n"
    text += (
        "a/1.png,P1,063Y,female,pa,Mass|Nodule,train\nb/1.dcm,P2,,,,No Finding,validation\nc.jpg,P3,5,M,AP,Edema,test\n"
    )
    source = pickle.loads(pickle.dumps(open_source(write(tmp_path, text, "a/1.png", "b/1.dcm", "c.jpg"))))
    (part,) = source.parts()
    first, second, third = source.rows(part)
    assert (first.image, first.image_id, first.patient_id) == (b"a/1.png", "a/1", "P1")
    assert (first.age, first.sex, first.view_position, first.findings) == (63, "F", "PA", ("Mass", "Nodule"))
    assert (second.age, second.sex, second.view_position, second.findings) == (None, None, None, ())
    assert [(row.split, row.fold) for row in (first, second, third)] == [("train", 1), ("train", 0), ("test", None)]
    assert [row.image_id for row in source.rows(part, {"c"})] == ["c"]


def test_without_patients_every_image_is_one_of_its_own(tmp_path: Path) -> None:
    metadata = open_source(write(tmp_path, "path,labels\n1.png,Mass\n2.png,No Finding\n")).metadata()
    assert metadata["patient_id"].tolist() == ["1", "2"]
    assert metadata[["age", "sex", "view_position", "split", "fold"]].isna().all(axis=None)


def test_a_column_of_0_and_1_for_each_finding(tmp_path: Path) -> None:
    text = "path,Pleural Thickening,effusion,Device\n1.png,1,1.0,7\n2.png,0,0,7\n"
    metadata = open_source(write(tmp_path, text)).metadata()
    assert metadata["findings"].tolist() == [("Effusion", "Pleural_Thickening"), ()]
    with pytest.raises(SourceError, match="row 3: effusion is '-1', not 0 or 1"):
        open_source(write(tmp_path, text.replace("0,0,7", "0,-1,7"))).metadata()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,age\n1.png,5\n", "neither a column of findings"),
        ("age,findings\n5,Mass\n", "no column of paths"),
        ("path,findings\n1.png,Mass\n1.png,Mass\n", "row 3: image 1 was there already in .*row 2"),
        ("path,findings\n1.png,Mass\n2.png,\n", "row 3, image 2: the findings are missing"),
        ("path,findings\n1.png,Mass\n2.png,Lupus\n", "row 3, image 2: unknown finding 'Lupus'"),
        ("path,patient,split,findings\n1.png,A,train,Mass\n2.png,A,test,Mass\n", "patient A is in test here"),
        ("", "cannot be read as a CSV"),
    ],
)
def test_bad_tables_are_refused_by_row(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        open_source(write(tmp_path, text)).metadata()


def test_an_absent_image_is_refused_by_name_and_row(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, "path,findings\n1.png,Mass\n2.png,Mass\n", "1.png"))
    assert len(source.metadata()) == 2
    with pytest.raises(SourceError, match="row 3: no file .*2.png"):
        source.parts()
    with pytest.raises(SourceError, match="no such file"):
        open_source(f"csv:{tmp_path / 'absent.csv'}").metadata()
