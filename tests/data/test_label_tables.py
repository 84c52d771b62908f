"""A few rows of each public test set, in its own layout and by its own rules."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.label_tables import LabelTable, LabelTableSource, open_label_table
from cxrfpn.data.labels import truth_matrix
from cxrfpn.data.schema import SourceError

CHEXPERT = """\
Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,\
Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices
CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0
CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,PA,,,-1.0,1.0,0.0,-1.0,-1.0,,1.0,,1.0,,1.0,
CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg,Male,83,Lateral,,,,,1.0,,,-1.0,,,,,,1.0,
"""
MIMIC = """\
subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,\
Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices
10000032,50414267,,,,,,,,,1.0,,,,,
10000764,57375967,,,1.0,,,,,,,,,-1.0,,
"""
MIMIC_METADATA = """\
dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime
02aa804e-bde0afdd-112c0b34-7bc16630-4e384014,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.531
174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.531
096052b7-d256dc40-453a102b-fa7d01c6-1b22c6b4,10000764,57375967,CHEST (PORTABLE AP),AP,2544,3056,21321015,102018.468
"""
MIMIC_SPLIT = """\
dicom_id,study_id,subject_id,split
02aa804e-bde0afdd-112c0b34-7bc16630-4e384014,50414267,10000032,validate
096052b7-d256dc40-453a102b-fa7d01c6-1b22c6b4,57375967,10000764,test
"""
PADCHEST = """\
,ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,\
MethodProjection,Pediatric,Labels
0,20536686640136348236148679891455886468_k6ga29.png,0,20140915,20536,839860488694292331637988235681460987,1930.0,F,\
POSTEROANTERIOR,PA,Manual review of DICOM fields,No,"['pulmonary fibrosis', ' hiatal hernia', 'COPD signs']"
1,135803415504923515076821959678074435083_fzis7d.png,0,20150914,13580,313572750430997347502932654319389875966,1929.0,M,\
POSTEROANTERIOR,AP_horizontal,Manual review of DICOM fields,No,"['normal']"
2,113855343774216031107737439268243531979_3k951l.png,0,20150511,11385,50783093527901818115346441867348318648,1925.0,M,\
LATERAL,L,Manual review of DICOM fields,No,"['cardiomegaly']"
3,81203763434376723577753129062834242953_gfs2nn.png,0,20140819,81203,91156846733240444404089244991460519219,1936.0,F,\
POSTEROANTERIOR,PA,Manual review of DICOM fields,No,"['exclude']"
4,216840111366964012768025509942010287151644554_00-163-058.png,0,20110810,21684,1045,1940.0,F,\
POSTEROANTERIOR,PA,Manual review of DICOM fields,No,"['subcutaneous emphysema', 'hydropneumothorax']"
"""
VINDR_TEST = """\
image_id,Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,Edema,Emphysema,\
Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,Mediastinal shift,Nodule/Mass,Pleural effusion,\
Pleural thickening,Pneumothorax,Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,Tuberculosis,\
Other diseases,No finding
002a34c58c5b758217ed1f584ccbcfe9,1,0,0,1,0,0,0,0,0,0,0,0,0,0,0,1,0,0,0,1,0,0,0,0,0,0,0,0
004f33259ee4aef671c2b95d54e4be68,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1
"""
VINDR_TRAIN = """\
image_id,rad_id,Atelectasis,Cardiomegaly,Nodule/Mass,Pleural effusion
8d3f4e0ab1,R10,1,0,0,1
8d3f4e0ab1,R9,1,0,1,0
8d3f4e0ab1,R8,0,0,1,0
"""
VINBIGDATA = """\
image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max
50a418190bc3fb1ef1633bf9678929b3,No finding,14,R11,,,,
50a418190bc3fb1ef1633bf9678929b3,No finding,14,R15,,,,
9a5094b2563a1ef3ff50dc5c7ff71345,Cardiomegaly,3,R10,691.0,1375.0,1653.0,1831.0
9a5094b2563a1ef3ff50dc5c7ff71345,Cardiomegaly,3,R9,690.0,1370.0,1650.0,1830.0
9a5094b2563a1ef3ff50dc5c7ff71345,Pleural effusion,10,R9,1789.0,1729.0,1875.0,1992.0
9a5094b2563a1ef3ff50dc5c7ff71345,Pleural effusion,10,R9,189.0,729.0,875.0,992.0
9a5094b2563a1ef3ff50dc5c7ff71345,No finding,14,R8,,,,
"""
RSNA = """\
patientId,x,y,width,height,Target
0004cfab-14fd-4e49-80ba-63a80b6bddd6,,,,,0
00436515-870c-4b36-a041-de91049b9ab4,264.0,152.0,213.0,379.0,1
00436515-870c-4b36-a041-de91049b9ab4,562.0,152.0,256.0,453.0,1
"""
RSNA_CLASSES = """\
patientId,class
0004cfab-14fd-4e49-80ba-63a80b6bddd6,No Lung Opacity / Not Normal
00436515-870c-4b36-a041-de91049b9ab4,Lung Opacity
"""
SIIM = """\
ImageId, EncodedPixels
1.2.276.0.7230010.3.1.4.8323329.5597.1517875188.959090, -1
1.2.276.0.7230010.3.1.4.8323329.12515.1517875239.501137, 175349 7 1013 12 1009 17
1.2.276.0.7230010.3.1.4.8323329.12515.1517875239.501137, 407576 2 1021 7 1015 10
"""
GOOGLE_FOUR = """\
Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,Fracture,Pneumothorax,\
Airspace opacity,Nodule or mass
00000013_008.png,Infiltration,8,13,60,M,AP,NO,HEDGE,YES,NO
00000116_038.png,Mass,38,116,54,M,AP,NO,YES,NO,HEDGE
"""
GOOGLE_ALL = """\
Image ID,Reader ID,Patient ID,Atelectasis,Cardiomegaly,Pleural Thickening,Other,Abnormal
00000211_006.png,4,211,YES,NO,NO,NO,YES
00000211_006.png,5,211,YES,NO,YES,NO,YES
00000211_006.png,6,211,NO,NO,YES,NO,YES
"""


@pytest.fixture
def read(tmp_path):
    """Write a table into a folder of its own and read it."""

    def read_text(kind: str, text: str, **beside: str) -> LabelTable:
        for name, content in beside.items():
            (tmp_path / f"mimic-cxr-2.0.0-{name}.csv.gz").write_bytes(gzip.compress(content.encode()))
        (tmp_path / "table.csv").write_text(text)
        return open_label_table(f"{kind}:{tmp_path / 'table.csv'}")

    return read_text


def _labels(table: LabelTable, row: int) -> dict[str, float]:
    """The known labels of an image."""
    truth = truth_matrix(table.metadata)[row]
    return {finding: truth[index] for index, finding in enumerate(FINDINGS) if not np.isnan(truth[index])}


def test_chexpert(read):
    """Uncertain and blank are unknown, but blank beside No Finding is absent; laterals are left out."""
    table = read("chexpert", CHEXPERT)
    healthy, ill = (_labels(table, row) for row in (0, 1))
    assert len(table.metadata) == 2 and table.notes == ("1 lateral images are left out",)
    labelled = {"Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Pneumonia", "Pneumothorax"}
    assert healthy == dict.fromkeys(labelled, 0.0) and set(table.labelled) == labelled
    assert ill == {"Atelectasis": 1.0, "Effusion": 1.0}
    assert table.groups["Lung Lesion"].tolist() == [0, 0] and table.groups["Lung Opacity"].tolist() == [0, 1]
    first = table.metadata.iloc[0]
    assert (first["patient_id"], first["age"], first["sex"], first["view_position"]) == ("patient00001", 68, "F", "AP")
    assert "unknown: Infiltration, Mass" in table.summary() and "Lung Lesion (any of Mass, Nodule)" in table.summary()


def test_mimic(read):
    """A study's labels are those of each of its frontal images; validate is the validation fold."""
    table = read("mimic", MIMIC, metadata=MIMIC_METADATA, split=MIMIC_SPLIT)
    assert table.metadata["image_id"].str[:8].tolist() == ["02aa804e", "096052b7"]
    assert table.metadata["patient_id"].tolist() == ["10000032", "10000764"]
    assert table.metadata["view_position"].tolist() == ["PA", "AP"]
    assert table.metadata["split"].tolist() == ["train", "test"] and table.metadata["fold"].iloc[0] == 0
    assert _labels(table, 0)["Effusion"] == 0 and _labels(table, 1) == {"Consolidation": 1.0}
    assert table.notes == ("1 images that are neither PA nor AP are left out",)


def test_mimic_needs_its_metadata(read):
    with pytest.raises(SourceError, match="needs mimic-cxr-2.0.0-metadata.csv beside it"):
        read("mimic", MIMIC)


def test_padchest(read):
    """Names map through the tree, and what only sounds alike does not; excluded rows and laterals are left out."""
    table = read("padchest", PADCHEST)
    assert len(table.metadata) == 3 and len(table.labelled) == 14
    expected = [{"Fibrosis", "Hernia"}, set(), {"Effusion", "Pneumothorax"}]
    assert [set(names) for names in table.metadata["findings"]] == expected
    assert _labels(table, 1) == dict.fromkeys(FINDINGS, 0.0)
    assert table.metadata["age"].tolist() == [84, 86, 71] and table.metadata["view_position"].tolist()[1] == "AP"
    assert len(table.notes) == 2


def test_vindr(read):
    """Consensus as it stands; of several readers most decide, and a box counts once a reader."""
    table = read("vindr", VINDR_TEST)
    assert set(table.metadata["findings"][0]) == {"Cardiomegaly", "Fibrosis"} and table.groups["Nodule/Mass"][0] == 1
    assert _labels(table, 1) == dict.fromkeys(table.labelled, 0.0) and "Hernia" not in table.labelled
    readers = read("vindr", VINDR_TRAIN)
    assert _labels(readers, 0) == {"Atelectasis": 1, "Cardiomegaly": 0, "Effusion": 0}
    assert readers.groups["Nodule/Mass"].tolist() == [1]
    boxes = read("vindr", VINBIGDATA)
    assert boxes.metadata["findings"].tolist() == [(), ("Cardiomegaly",)] and "Pneumonia" not in boxes.labelled


def test_rsna_and_siim(read):
    """A row a box or outline, one image; both say that their films are the NIH's."""
    for text in (RSNA, RSNA_CLASSES):
        table = read("rsna", text)
        assert table.metadata["findings"].tolist() == [(), ("Pneumonia",)] and table.labelled == ("Pneumonia",)
    table = read("siim", SIIM)
    assert table.metadata["findings"].tolist() == [(), ("Pneumothorax",)]
    assert table.metadata["image_id"][0] == "1.2.276.0.7230010.3.1.4.8323329.5597.1517875188.959090"
    assert "NIH ChestX-ray14" in table.summary()


def test_nih_google(read):
    table = read("nih-google", GOOGLE_FOUR)
    assert _labels(table, 0) == {} and _labels(table, 1) == {"Pneumothorax": 1.0}
    assert table.groups["Airspace opacity"].tolist() == [1, 0]
    assert table.groups["Nodule or mass"].isna().tolist() == [False, True]
    assert table.metadata["patient_id"].tolist() == ["13", "116"] and table.metadata["age"].tolist() == [60, 54]
    readers = read("nih-google", GOOGLE_ALL)
    assert _labels(readers, 0) == {"Atelectasis": 1, "Cardiomegaly": 0, "Pleural_Thickening": 1}


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("chexpert", CHEXPERT.replace("0.0,,,,1.0", "maybe,,,,1.0", 1), "row 2: Pneumothorax is 'maybe', not 0 or 1"),
        ("padchest", PADCHEST.replace("['normal']", "normal"), "row 3: Labels is 'normal', not a list"),
        ("rsna", RSNA.replace("Target", "target_"), "neither a column Target nor class"),
        ("vindr", RSNA, "no column image_id"),
        ("siim", SIIM.replace(" -1", ""), "row 2: EncodedPixels is empty"),
        ("nih-google", RSNA, "no column Image ID"),
    ],
)
def test_what_a_set_does_not_write_is_refused(read, kind, text, message):
    with pytest.raises(SourceError, match=message):
        read(kind, text)


def test_an_unknown_kind_is_refused():
    with pytest.raises(SourceError, match="KIND of chexpert, mimic"):
        open_label_table("openi:reports.csv")


def test_images_are_found_by_the_part_of_their_path_that_tells_them(read, tmp_path):
    table = read("chexpert", CHEXPERT)
    source = LabelTableSource(table)
    with pytest.raises(SourceError, match="2 of 2 images of table.csv are nowhere in it"):
        source.parts()
    for value, image_id in enumerate(table.metadata["image_id"]):
        path = tmp_path / Path(*Path(image_id).parts[1:]).with_suffix(".jpg")  # as unpacked beside the table
        path.parent.mkdir(parents=True)
        Image.new("L", (8, 8), value).save(path)
    source = LabelTableSource(open_label_table(table.name))
    rows = [row for part in source.parts() for row in source.rows(part)]
    assert [row.image_id for row in rows] == table.metadata["image_id"].tolist()
    assert rows[0].image != rows[1].image and rows[1].findings == ("Atelectasis", "Effusion")
    assert isinstance(source.metadata(), pd.DataFrame)
