"""Labels that radiologists gave to films of the NIH, published by Google.

Four findings, adjudicated (Majkowska et al., 2020), and all fourteen by five readers, of whom most decide (Nabulsi et
al., 2021). YES is present, NO absent; HEDGE is unknown.
"""

from pathlib import Path

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.label_tables.table import LabelTable, majority, make_table, read_marks, read_table
from cxrfpn.data.schema import SourceError
from cxrfpn.data.sources.columns import letters, spelled

OPACITY = ("Atelectasis", "Consolidation", "Edema", "Infiltration", "Pneumonia")
GROUPS: dict[str, tuple[str, ...]] = {"Airspace opacity": OPACITY, "Nodule or mass": ("Mass", "Nodule")}


def read_nih_google(file: Path) -> LabelTable:
    """Read test_labels.csv, validation_labels.csv or individual_readers.csv of either of the two sets.

    Raises:
        SourceError: it cannot be read as such a table.
    """
    table = read_table(file)
    fields = {name: column for name, column in spelled(table.columns).items() if name != "findings"}
    if "image_id" not in fields:
        raise SourceError(f"{file}: has no column Image ID; it has {', '.join(table.columns[:20])}")
    known = {letters(name): name for name in (*FINDINGS, *GROUPS)}
    table = table.rename(columns={column: known[letters(column)] for column in table if letters(column) in known})
    marks = read_marks(table, list(known.values()), file)
    if reader := next((column for column in table if letters(column) == "readerid"), None):
        images, order = table[fields["image_id"]], ~table[fields["image_id"]].duplicated()
        marks = majority(marks, images) if table[reader].nunique() > 1 else marks[order]
        table = table[order]
    rows = {field: table[column].tolist() for field, column in fields.items()}
    mapping = {**{finding: (finding,) for finding in FINDINGS}, **GROUPS}
    return make_table("nih-google", file, rows, marks.reset_index(drop=True), mapping)
