"""CheXpert (Irvin et al., 2019) and MIMIC-CXR (Johnson et al., 2019), which its labeller has labelled.

1 is present, 0 absent, -1 uncertain; an empty cell says that the report does not mention it. Uncertain and not
mentioned are unknown here, except that the labeller's "No Finding" means that no finding is present or uncertain.
"""

from pathlib import Path

import pandas as pd

from cxrfpn.data.label_tables.table import LabelTable, left_out, make_table, read_marks, read_table
from cxrfpn.data.schema import SourceError

NO_FINDING = "No Finding"
FINDINGS_OF: dict[str, tuple[str, ...]] = {
    "Atelectasis": ("Atelectasis",),
    "Cardiomegaly": ("Cardiomegaly",),
    "Consolidation": ("Consolidation",),
    "Edema": ("Edema",),
    "Pleural Effusion": ("Effusion",),
    "Pneumonia": ("Pneumonia",),
    "Pneumothorax": ("Pneumothorax",),
    "Lung Lesion": ("Mass", "Nodule"),
    # The parent of these in the labeller's tree.
    "Lung Opacity": ("Atelectasis", "Consolidation", "Edema", "Infiltration", "Mass", "Nodule", "Pneumonia"),
}
MIMIC_METADATA, MIMIC_SPLIT = "mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.0.0-split.csv"


def read_chexpert(file: Path) -> LabelTable:
    """Read train.csv, valid.csv or the test labels of CheXpert; lateral images are left out.

    Raises:
        SourceError: it cannot be read as such a table.
    """
    table = read_table(file, "Path")
    views = table["Frontal/Lateral"] if "Frontal/Lateral" in table else table["Path"]
    frontal = ~views.str.contains("lateral", case=False)
    table = table[frontal]
    rows = {
        "image_id": table["Path"].tolist(),
        "patient_id": table["Path"].str.extract(r"(patient\d+)")[0].tolist(),
        "age": table["Age"].tolist() if "Age" in table else None,
        "sex": table["Sex"].tolist() if "Sex" in table else None,
        # LL and RL are of laterals; other frontal views are unknown.
        "view_position": [view if view in ("AP", "PA") else "" for view in table.get("AP/PA", [""] * len(table))],
    }
    notes = left_out(int((~frontal).sum()), "lateral images")
    return make_table("chexpert", file, rows, _marks(table, file), FINDINGS_OF, notes, id_parts=3)


def read_mimic(file: Path) -> LabelTable:
    """Read a table of MIMIC-CXR's labels by study, for the PA and AP images that its metadata lists.

    Beside it lies mimic-cxr-2.0.0-metadata.csv (or .csv.gz), and mimic-cxr-2.0.0-split.csv if it is to be used.

    Raises:
        SourceError: a table is missing or cannot be read.
    """
    labels = read_table(file, "study_id")
    beside = _beside(file, MIMIC_METADATA)
    if beside is None:
        raise SourceError(f"{file}: needs {MIMIC_METADATA} beside it, which says which images a study has")
    images = read_table(beside, "dicom_id", "subject_id", "study_id", "ViewPosition")
    frontal = images["ViewPosition"].str.upper().isin(("AP", "PA"))
    labelled = images["study_id"].isin(labels["study_id"])
    marks = _marks(labels, file).set_axis(labels["study_id"], axis=0)
    images = images[frontal & labelled]
    rows = {
        "image_id": images["dicom_id"].tolist(),
        "patient_id": images["subject_id"].tolist(),
        "view_position": images["ViewPosition"].tolist(),
    }
    if split := _beside(file, MIMIC_SPLIT):
        table = read_table(split, "dicom_id", "split").set_index("dicom_id")["split"]
        sides = images["dicom_id"].map(table.replace("validate", "validation"))
        rows["split"] = [None if pd.isna(side) else side for side in sides]
    notes = left_out(int((labelled & ~frontal).sum()), "images that are neither PA nor AP")
    return make_table("mimic", file, rows, marks.loc[images["study_id"]].reset_index(drop=True), FINDINGS_OF, notes)


def _marks(table: pd.DataFrame, file: Path) -> pd.DataFrame:
    marks = read_marks(table, [*FINDINGS_OF, NO_FINDING], file)
    if NO_FINDING not in marks:
        return marks
    findings = marks.drop(columns=NO_FINDING)
    return findings.mask(findings.isna() & (marks[[NO_FINDING]] == 1).to_numpy(), 0.0)


def _beside(file: Path, name: str) -> Path | None:
    return next((path for path in (file.parent / name, file.parent / f"{name}.gz") if path.exists()), None)
