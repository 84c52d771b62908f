"""A table of one's own, with any columns."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.labels import truth_matrix
from cxrfpn.data.preparing import prepare
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


@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8-sig", ";"), ("utf-16", "\t"), ("latin-1", ","), ("utf-8", "|")]
)
def test_a_table_as_other_programs_write_it(tmp_path: Path, encoding: str, delimiter: str) -> None:
    """Windows paths, headers in capitals, other words for sex and view, and a lateral row that stops nothing."""
    lines = [
        ["FILE", "AGE", "SEX", "VIEW", "GRÖSSE", "FINDINGS"],
        ["films\\1.png", "58", "Male", "AP SUPINE", "x", "Mass"],
        ["C:\\ward\\films\\2.png", "414", "O", "LATERAL", "y", "No Finding"],
    ]
    write(tmp_path, "", "films/1.png", "films/2.png")
    (tmp_path / "table.csv").write_bytes("\r\n".join(map(delimiter.join, lines)).encode(encoding))
    source = open_source(f"csv:{tmp_path / 'table.csv'}")
    first, second = source.rows(*source.parts())
    assert (first.image, first.age, first.sex, first.view_position) == (b"films/1.png", 58, "M", "AP")
    assert (second.image, second.age, second.sex, second.view_position) == (b"films/2.png", None, None, "LATERAL")


def test_without_patients_every_image_is_one_of_its_own_and_that_is_said(tmp_path: Path, caplog) -> None:
    metadata = open_source(write(tmp_path, "path,labels\n1.png,Mass\n2.png,No Finding\n")).metadata()
    assert metadata["patient_id"].tolist() == ["1", "2"]
    (said,) = caplog.messages
    assert "table.csv: 2 of 2 images name no patient" in said and "splits by patient leak" in said
    assert metadata[["age", "sex", "view_position", "split", "fold"]].isna().all(axis=None)


def test_a_column_of_0_and_1_for_each_finding(tmp_path: Path, caplog) -> None:
    text = "path,patient,Pleural Thickening,effusion,Device\n1.png,A,1,1.0,7\n2.png,A,0,0,7\n"
    metadata = open_source(write(tmp_path, text)).metadata()
    assert metadata["findings"].tolist() == [("Effusion", "Pleural_Thickening"), ()]
    (said,) = caplog.messages
    assert "table.csv: has no column of Atelectasis, " in said and said.endswith("unknown on every image")
    assert "Pleural_Thickening" not in said and "Effusion" not in said and "Hernia" in said
    assert set(FINDINGS) - set(metadata["unknown"][1]) == {"Effusion", "Pleural_Thickening"}
    with pytest.raises(SourceError, match="row 3: effusion is '2', not 0 or 1; leave the cell empty where it is unkn"):
        open_source(write(tmp_path, text.replace("0,0,7", "0,2,7"))).metadata()


def test_columns_that_may_be_findings_of_other_names_are_named(tmp_path: Path, caplog) -> None:
    text = "path,patient,Mass,TB,Scoliosis,No Finding,Dose,Seen\na.png,1,1,1,,0,1,0\nb.png,0,0,-1,1,1,7,0\n"
    source = write(tmp_path, text)
    open_source(source).metadata()
    lacking, unread = caplog.messages
    assert "has no column of" in lacking
    assert "table.csv: does not read TB, Scoliosis: " in unread and unread.endswith("name those that are in --findings")
    caplog.clear()
    open_source(source, findings=("Mass", "TB", "Scoliosis")).metadata()
    assert caplog.messages == []


def test_an_empty_cell_and_minus_1_are_unknown(tmp_path: Path) -> None:
    text = "path,patient,TB,Pleural Effusion\n1.png,A,1,-1\n2.png,B,,0\n3.png,C,-1.0,1\n"
    source = open_source(write(tmp_path, text), findings=("TB", "Effusion"))
    metadata = source.metadata()
    assert metadata["findings"].tolist() == [("TB",), (), ("Effusion",)]
    assert metadata["unknown"].tolist() == [("Effusion",), ("TB",), ("TB",)]
    values = truth_matrix(metadata, ("TB", "Effusion"))
    np.testing.assert_array_equal(values, [[1, np.nan], [np.nan, 0], [np.nan, 1]])
    with pytest.raises(SourceError, match="phantom:9: knows the 14 findings of NIH only"):
        open_source("phantom:9", findings=("TB",))


def test_of_a_whole_table_nothing_is_said(tmp_path: Path, caplog) -> None:
    columns = dict.fromkeys(FINDINGS, "0")
    named_as_the_nih_does = f"path,{','.join(columns)}\n00000001_000.png,{','.join(columns.values())}\n"
    for text in (named_as_the_nih_does, "path,patient,findings\n1.png,A,Mass\n"):
        open_source(write(tmp_path, text)).metadata()
    assert not caplog.messages


@pytest.mark.parametrize("findings", ["", ",findings", ",Mass"])
def test_without_findings_their_column_is_not_read(tmp_path: Path, findings: str, caplog) -> None:
    text = f"path,age{findings}\n1.png,58{',Lupus' if findings else ''}\n"
    source = open_source(write(tmp_path, text, "1.png"), without=("findings",))
    (row,) = source.rows(*source.parts())
    assert (row.image_id, row.age, row.findings) == ("1", 58, ())
    assert not caplog.messages  # of patients that the table does not name, for nothing is split


def test_a_file_that_fails_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    """/proc/self/mem is a file whose first byte nobody can read, not even root."""
    source = open_source(write(tmp_path, "path,findings\n1.png,Mass\n2.png,Mass\n3.png,Mass\n", "1.png", "3.png"))
    (tmp_path / "2.png").symlink_to("/proc/self/mem")
    rows = list(source.rows(*source.parts()))
    assert [row.image for row in rows] == [b"1.png", b"", b"3.png"]
    assert [row.error for row in rows] == [None, "the file cannot be read (Input/output error)", None]
    prepared = prepare(source, tmp_path / "prepared", processes=1)
    assert prepared.skipped["2"] == "the file cannot be read (Input/output error)"


def test_a_file_that_is_gone_ends_its_part(tmp_path: Path) -> None:
    """It may be the whole disk that is gone: no image is written off for that."""
    source = open_source(write(tmp_path, "path,findings\n1.png,Mass\n", "1.png"))
    (part,) = source.parts()
    (tmp_path / "1.png").unlink()
    with pytest.raises(SourceError, match="1.png: cannot be read .No such file"):
        list(source.rows(part))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,age\n1.png,5\n", "neither a column of findings"),
        ("age,findings\n5,Mass\n", "no column of paths"),
        ("path,findings\n1.png,Mass\n1.png,Mass\n", "row 3: image 1 was there already in .*row 2"),
        ("path,findings\n1.png,Mass\n2.png,\n", "row 3, image 2: the findings are missing"),
        ("path,findings\n1.png,Mass\n2.png,Lupus\n", "row 3, image 2: unknown finding 'Lupus'"),
        ("path,patient,split,findings\n1.png,A,train,Mass\n2.png,A,test,Mass\n", "patient A is in test here"),
        ("", "cannot be read as a table"),
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
