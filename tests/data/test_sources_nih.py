"""NIH ChestX-ray14 as it is published: in folders of any depth, in archives, by either table."""

import gzip
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from cxrfpn.data.schema import SourceError
from cxrfpn.data.sources import open_source

COLUMNS = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
COLUMNS += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
TRAIN, TEST = ["00000001_000", "00000001_001", "00000002_000"], ["00000003_000", "00000003_001"]
LINES = [
    "00000001_000.png,Cardiomegaly|Emphysema,0,1,058Y,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,No Finding,1,1,414Y,M,AP,2682,2749,0.143,0.143",
    "00000002_000.png,Mass,0,2,080Y,F,PA,2682,2749,0.143,0.143",
    "00000003_000.png,Hernia,0,3,013M,F,PA,2682,2749,0.143,0.143",
    "00000003_001.png,Pleural_Thickening|Infiltration,1,3,074Y,F,AP,2682,2749,0.143,0.143",
]


def content(image_id: str) -> bytes:
    return f"the pixels of {image_id}".encode() * 50


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder with the tables of the NIH and no image."""
    # The table of 2017 ends its lines with a comma, which must not push the columns aside.
    (tmp_path / "Data_Entry_2017.csv").write_text("".join(f"{line},\n" for line in [COLUMNS, *LINES]))
    with gzip.open(tmp_path / "train_val_list.txt.gz", "wt") as file:
        file.writelines(f"{image}.png\n" for image in TRAIN)
    (tmp_path / "test_list.txt").write_text("\n".join(f"{image}.png" for image in TEST))
    (tmp_path / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000003_001.png,Infiltrate,256,512,128,64,,,\n"
    )
    return tmp_path


def put(path: Path, *image_ids: str) -> None:
    """Write images: loose into a folder, or into an archive, by the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for image_id in image_ids:
                archive.writestr(f"images/{image_id}.png", content(image_id))
        return
    loose = path.parent / "to be packed" if path.suffix == ".gz" else path
    loose.mkdir(parents=True, exist_ok=True)
    for image_id in image_ids:
        (loose / f"{image_id}.png").write_bytes(content(image_id))
    if path.suffix == ".gz":
        with tarfile.open(path, "w:gz") as archive:
            archive.add(loose, "images")
        shutil.rmtree(loose)


def ids_of(source, wanted=None) -> list[str]:
    rows = [row for part in source.parts() for row in source.rows(part, wanted)]
    assert all(row.image == content(row.image_id) for row in rows)
    return [row.image_id for row in rows]


def test_the_tables_alone_give_the_metadata(tables: Path) -> None:
    source = open_source(f"nih:{tables}")
    metadata = source.metadata()
    assert metadata["image_id"].tolist() == TRAIN + TEST
    assert metadata["patient_id"].tolist() == ["1", "1", "2", "3", "3"]
    assert metadata["age"].tolist()[2:] == [80, 13 / 12, 74]
    assert metadata["age"].isna().tolist() == [False, True, False, False, False]
    assert metadata["findings"].tolist()[:2] == [("Cardiomegaly", "Emphysema"), ()]
    assert metadata["split"].tolist() == ["train"] * 3 + ["test"] * 2
    assert metadata["fold"].isna().all()
    with pytest.raises(SourceError, match="holds none of the images"):
        source.parts()


def test_images_in_folders_and_archives_come_each_once_with_their_metadata(tables: Path) -> None:
    put(tables / "images" / "deep", TRAIN[0])
    put(tables / "images_001.tar.gz", TRAIN[0], TRAIN[1], TEST[1])
    put(tables / "more" / "images_002.zip", TRAIN[2], TEST[0], TEST[1])
    source = pickle.loads(pickle.dumps(open_source(f"nih:{tables}")))
    assert source.parts() == [f"{TRAIN[0]}..{TRAIN[0]}", "images_001.tar.gz", "more/images_002.zip"]
    assert sorted(ids_of(source)) == TRAIN + TEST
    (row,) = source.rows("images_001.tar.gz", {TEST[1]})
    assert (row.patient_id, row.age, row.sex, row.view_position, row.split) == ("3", 74, "F", "AP", "test")
    assert row.findings == ("Infiltration", "Pleural_Thickening")
    assert (row.boxes[0].finding, row.boxes[0].x, row.boxes[0].height) == ("Infiltration", 0.25, 0.0625)


def test_only_wanted_files_are_opened(tables: Path) -> None:
    put(tables / "images", *TRAIN, *TEST)
    source = open_source(f"nih:{tables}")
    parts = source.parts()
    (tables / "images" / f"{TEST[0]}.png").unlink()
    assert ids_of(source, set(TRAIN)) == TRAIN
    with pytest.raises(SourceError, match=rf"{TEST[0]}.png: cannot be read"):
        list(source.rows(parts[0]))


def test_a_file_that_fails_is_an_image_that_cannot_be_read(tables: Path) -> None:
    put(tables / "images", *TRAIN[1:], *TEST)
    (tables / "images" / f"{TRAIN[0]}.png").symlink_to("/proc/self/mem")  # whose first byte nobody can read
    source = open_source(f"nih:{tables}")
    rows = list(source.rows(*source.parts()))
    assert [row.image_id for row in rows] == TRAIN + TEST
    assert [row.error for row in rows] == ["the file cannot be read (Input/output error)", *[None] * 4]


def test_an_image_of_the_table_that_is_nowhere_is_refused_by_name_and_row(tables: Path) -> None:
    put(tables / "images", *TRAIN, TEST[1])
    with pytest.raises(SourceError, match=f"image {TEST[0]}, row 5 of the table, is nowhere"):
        open_source(f"nih:{tables}").parts()


def test_the_later_table_is_taken_and_may_be_zipped(tables: Path) -> None:
    with gzip.open(tables / "Data_Entry_2017_v2020.csv.gz", "wt") as file:
        file.write("\n".join([COLUMNS, LINES[0].replace("058Y", "57"), *LINES[1:]]))
    assert open_source(f"nih:{tables}").metadata()["age"].iloc[0] == 57


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("Data_Entry_2017.csv", "Hernia", "Hernya", "Data_Entry_2017.csv, row 5, image 00000003_000: .*'Hernya'"),
        ("Data_Entry_2017.csv", "00000002_000", "00000001_001", "row 4: image 00000001_001 .*row 3"),
        ("Data_Entry_2017.csv", "1,3,074Y", "1,1,074Y", "row 6: patient 1 is in test here and in train in .*row 2"),
        ("test_list.txt", "00000003_001", "00000004_001", "row 6: image 00000003_001 is in neither"),
        ("test_list.txt", "00000003_001", "00000001_001", "00000001_001 is listed twice"),
        ("Data_Entry_2017.csv", "Finding Labels", "Remarks", "no column findings"),
    ],
)
def test_what_a_table_may_not_hold_is_refused_by_name_and_row(
    tables: Path, file: str, old: str, new: str, words: str
) -> None:
    text = (tables / file).read_text()
    (tables / file).write_text(text.replace(old, new))
    with pytest.raises(SourceError, match=words):
        open_source(f"nih:{tables}").metadata()


@pytest.mark.parametrize("name", ["images_001.tar.gz", "images_001.zip"])
def test_an_archive_that_was_cut_short_gets_one_line(tables: Path, name: str) -> None:
    put(tables / name, *TRAIN, *TEST)
    source = open_source(f"nih:{tables}")
    parts, whole = source.parts(), (tables / name).read_bytes()
    (tables / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=f"{name}: damaged or cut short"):
        list(source.rows(parts[0]))
    with pytest.raises(SourceError, match=f"{name}: damaged or cut short"):
        open_source(f"nih:{tables}").parts()


def test_an_image_at_two_places_is_refused(tables: Path) -> None:
    put(tables / "a", *TRAIN, *TEST)
    put(tables / "b", TEST[0])
    with pytest.raises(SourceError, match=f"b/{TEST[0]}.png: the same image lies in .*a/{TEST[0]}.png"):
        open_source(f"nih:{tables}").parts()


@pytest.mark.parametrize("lacking", ["Data_Entry_2017.csv", "test_list.txt"])
def test_a_lacking_table_is_named(tables: Path, lacking: str) -> None:
    (tables / lacking).unlink()
    with pytest.raises(SourceError, match=f"{lacking[:9]}"):
        open_source(f"nih:{tables}").metadata()


def test_the_metadata_of_the_whole_data_set(nih_mini: Path, tmp_path: Path) -> None:
    for name in ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"):
        shutil.copy(nih_mini / f"{name}.gz", tmp_path)
    metadata = open_source(f"nih:{tmp_path}").metadata()
    assert metadata["split"].value_counts().to_dict() == {"train": 86_524, "test": 25_596}
    table = pd.read_csv(nih_mini / "Data_Entry_2017_v2020.csv.gz")
    assert metadata["age"].tolist() == table["Patient Age"].tolist()
    assert metadata["sex"].tolist() == table["Patient Gender"].tolist()
    assert ["|".join(sorted(names)) or "No Finding" for names in metadata["findings"]] == [
        "|".join(sorted(names.split("|"))) for names in table["Finding Labels"]
    ]
