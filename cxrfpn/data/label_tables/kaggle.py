"""The RSNA pneumonia challenge (2018) and the SIIM-ACR pneumothorax challenge (2019), both on films of the NIH."""

from pathlib import Path

import pandas as pd

from cxrfpn.data.label_tables.table import LabelTable, make_table, read_marks, read_table
from cxrfpn.data.schema import SourceError

NIH_FILMS = "Its films are of NIH ChestX-ray14: a model trained there may have seen them"
RSNA_CLASSES = {"Lung Opacity": 1.0, "No Lung Opacity / Not Normal": 0.0, "Normal": 0.0}


def read_rsna(file: Path) -> LabelTable:
    """Read stage_2_train_labels.csv (a row a box) or stage_2_detailed_class_info.csv: opacity suspicious of pneumonia.

    Raises:
        SourceError: it cannot be read as such a table.
    """
    table = read_table(file, "patientId")
    if "Target" in table:
        marks = read_marks(table, ["Target"], file).set_axis(table["patientId"], axis=0)
    elif "class" in table:
        if len(unknown := table[~table["class"].isin(RSNA_CLASSES)]):
            raise SourceError(
                f"{file}, row {unknown.index[0] + 2}: class {unknown['class'].iloc[0]!r} is none of RSNA's"
            )
        marks = pd.DataFrame({"Target": table["class"].map(RSNA_CLASSES).to_numpy()}, index=table["patientId"])
    else:
        raise SourceError(f"{file}: has neither a column Target nor class; take stage_2_train_labels.csv")
    return _by_image("rsna", file, marks, {"Target": ("Pneumonia",)})


def read_siim(file: Path) -> LabelTable:
    """Read train-rle.csv (an outline a row, -1 for none): pneumothorax.

    Raises:
        SourceError: it cannot be read as such a table.
    """
    table = read_table(file, "ImageId", "EncodedPixels")
    outlines = table["EncodedPixels"].str.strip()
    if (empty := outlines == "").any():
        raise SourceError(
            f"{file}, row {int(empty.to_numpy().argmax()) + 2}: EncodedPixels is empty; -1 stands for none"
        )
    marks = pd.DataFrame({"EncodedPixels": (outlines != "-1").astype(float).to_numpy()}, index=table["ImageId"])
    return _by_image("siim", file, marks, {"EncodedPixels": ("Pneumothorax",)})


def _by_image(kind: str, file: Path, marks: pd.DataFrame, mapping: dict[str, tuple[str, ...]]) -> LabelTable:
    """One row an image, present where any of its rows says so."""
    marks = marks.groupby(level=0, sort=False).max()
    return make_table(kind, file, {"image_id": marks.index.tolist()}, marks, mapping, [NIH_FILMS])
