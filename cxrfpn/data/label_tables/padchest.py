"""PadChest (Bustos et al., 2020): lists of labels from a tree of 174 findings and 19 diagnoses.

A report that mentions nothing of a finding counts as one without it, as the set's authors use it. Rows whose labels
are empty, "exclude", or only say that nothing changed are left out.
"""

import ast
from pathlib import Path

import pandas as pd

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.label_tables.table import LabelTable, left_out, make_table, read_table
from cxrfpn.data.schema import SourceError

# Our finding -> the labels of the tree, with their children.
LABELS_OF: dict[str, tuple[str, ...]] = {
    "Atelectasis": (
        "atelectasis",
        "atelectasis basal",
        "laminar atelectasis",
        "lobar atelectasis",
        "round atelectasis",
        "segmental atelectasis",
        "total atelectasis",
    ),
    "Cardiomegaly": ("cardiomegaly",),
    "Effusion": ("pleural effusion", "loculated pleural effusion", "loculated fissural effusion", "hydropneumothorax"),
    "Infiltration": (
        "infiltrates",
        "interstitial pattern",
        "ground glass pattern",
        "reticular interstitial pattern",
        "reticulonodular interstitial pattern",
        "miliary opacities",
        "alveolar pattern",
        "consolidation",
        "air bronchogram",
    ),
    "Mass": ("mass", "pulmonary mass"),
    "Nodule": ("nodule", "multiple nodules"),
    "Pneumonia": ("pneumonia", "atypical pneumonia"),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "Consolidation": ("consolidation",),
    "Edema": ("pulmonary edema",),
    "Emphysema": ("emphysema",),
    "Fibrosis": ("pulmonary fibrosis", "fibrotic band"),
    "Pleural_Thickening": ("pleural thickening", "apical pleural thickening", "calcified pleural thickening"),
    "Hernia": ("hiatal hernia",),
}
NO_INFORMATION = frozenset(("", "exclude", "unchanged", "suboptimal study"))
# Of a patient who lies on the back.
VIEWS = {"PA": "PA", "AP": "AP", "AP_HORIZONTAL": "AP"}


def read_padchest(file: Path) -> LabelTable:
    """Read PADCHEST_chest_x_ray_images_labels_160K.csv; images that are neither PA nor AP are left out.

    Raises:
        SourceError: it cannot be read as such a table.
    """
    table = read_table(file, "ImageID", "PatientID", "Projection", "Labels")
    frontal = table["Projection"].str.strip().str.upper().isin(VIEWS)
    labels = pd.Series(
        [_read_list(text, file, row) for row, text in zip(table.index, table["Labels"], strict=True)], table.index
    )
    useful = labels.map(lambda names: "exclude" not in names and bool(names - NO_INFORMATION)).astype(bool)
    table, named = table[frontal & useful], labels[frontal & useful]
    rows = {
        "image_id": table["ImageID"].tolist(),
        "patient_id": table["PatientID"].tolist(),
        "age": _ages(table),
        "sex": table["PatientSex_DICOM"].tolist() if "PatientSex_DICOM" in table else None,
        "view_position": table["Projection"].str.strip().str.upper().map(VIEWS).tolist(),
    }
    marks = pd.DataFrame(
        {finding: [float(bool(names & set(LABELS_OF[finding]))) for names in named] for finding in FINDINGS},
        index=table.index,
    )
    notes = (
        *left_out(int((~frontal).sum()), "images that are neither PA nor AP"),
        *left_out(int((frontal & ~useful).sum()), "images whose labels say nothing of findings"),
    )
    return make_table("padchest", file, rows, marks, {finding: (finding,) for finding in FINDINGS}, notes)


def _read_list(text: str, file: Path, row: int) -> frozenset[str]:
    """Read "['normal', ' pleural effusion']", in which names may have spaces around them and come twice."""
    if not text.strip():
        return frozenset()
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        names = None
    if not isinstance(names, list):
        raise SourceError(f"{file}, row {row + 2}: Labels is {text[:60]!r}, not a list of names")
    return frozenset(str(name).strip().lower() for name in names)


def _ages(table: pd.DataFrame) -> list[float | None]:
    """Years from the year of birth to that of the study; the set has no dates of birth."""
    if not {"PatientBirth", "StudyDate_DICOM"} <= set(table.columns):
        return [None] * len(table)
    born = pd.to_numeric(table["PatientBirth"], errors="coerce")
    study = pd.to_numeric(table["StudyDate_DICOM"].str[:4], errors="coerce")
    return [None if pd.isna(age) or not 0 <= age <= 120 else float(age) for age in study - born]
