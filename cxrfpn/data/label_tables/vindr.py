"""VinDr-CXR (Nguyen et al., 2022): 28 labels by radiologists. Of its training images three have each seen one.

Reads image_labels_test.csv (consensus) and image_labels_train.csv (a row a reader; most of them decide), and the
train.csv of the VinBigData challenge (a row a box and reader).
"""

from pathlib import Path

import pandas as pd

from cxrfpn.data.label_tables.table import LabelTable, majority, make_table, read_marks, read_table

FINDINGS_OF: dict[str, tuple[str, ...]] = {
    "Atelectasis": ("Atelectasis",),
    "Cardiomegaly": ("Cardiomegaly",),
    "Consolidation": ("Consolidation",),
    "Edema": ("Edema",),
    "Emphysema": ("Emphysema",),
    "Infiltration": ("Infiltration",),
    "Pleural effusion": ("Effusion",),
    "Pleural thickening": ("Pleural_Thickening",),
    "Pneumonia": ("Pneumonia",),
    "Pneumothorax": ("Pneumothorax",),
    "Pulmonary fibrosis": ("Fibrosis",),
    "Nodule/Mass": ("Mass", "Nodule"),
}
# Of the challenge, which has fewer labels than the set.
CHALLENGE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Infiltration", "Nodule/Mass", "Pleural effusion",
             "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis")  # fmt: skip


def read_vindr(file: Path) -> LabelTable:
    """Read one of the tables above. The set names no patients: every image counts as one.

    Raises:
        SourceError: it cannot be read as such a table.
    """
    table = read_table(file, "image_id")
    if "class_name" in table:
        named = {label: (table["class_name"] == label).astype(float) for label in CHALLENGE}
        # A row a box: a reader who drew several has seen the finding once.
        reader = [table["image_id"], table["rad_id"]] if "rad_id" in table else [table["image_id"]]
        marks = pd.DataFrame(named).groupby(reader, sort=False).max()
        marks = majority(marks, pd.Series(marks.index.get_level_values("image_id")))
    else:
        marks = read_marks(table, list(FINDINGS_OF), file)
        images = table["image_id"]
        marks = majority(marks, images) if "rad_id" in table else marks.set_axis(images, axis=0)
    return make_table("vindr", file, {"image_id": marks.index.tolist()}, marks, FINDINGS_OF)
