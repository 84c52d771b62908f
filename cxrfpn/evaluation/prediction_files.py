"""Tables of predictions on disk: every form that predict.py writes, and tables of anyone's."""

import io
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa

from cxrfpn.cells import text_of
from cxrfpn.prediction.archive import MANIFEST, PART_FOLDER
from cxrfpn.table_text import decode_table, read_table

PARQUET_SUFFIXES = (".parquet", ".pq")


def read_prediction_table(path: Path) -> pd.DataFrame:
    """Read the rows of predictions, one an image, with the columns as they are.

    Args:
        path: parquet; a text table with any separator; JSON lines of predict.py; or the folder of an archive that
            predict.py has finished.

    Raises:
        ValueError, OSError: it is none of these, or an archive that lacks parts.
    """
    if path.is_dir():
        return _read_archive(path)
    if path.suffix.lower() in PARQUET_SUFFIXES:
        try:
            return pd.read_parquet(path)
        except pa.ArrowException as error:
            raise ValueError(str(error)) from None
    text, delimiter = decode_table(read_table(path))
    if text.lstrip().startswith("{"):
        return pd.DataFrame([_read_record(line) for line in text.splitlines() if line.strip()])
    if any(line.split() == ["finding", "score", "threshold", "probability", "call"] for line in text.splitlines()[:3]):
        raise ValueError("it is predict.py's table for people; write it with --format csv, json or parquet")
    # Text throughout: an id such as 00000003 must keep its zeros.
    table = pd.read_csv(io.StringIO(text), sep=delimiter, dtype=str, skipinitialspace=True)
    return table.map(text_of, na_action="ignore")  # as predict.py writes cells


def _read_archive(folder: Path) -> pd.DataFrame:
    try:
        expected = len(json.loads((folder / MANIFEST).read_text())["parts"])
    except (OSError, KeyError, TypeError, ValueError):
        raise ValueError(f"the folder holds no {MANIFEST}, which predict.py --source writes") from None
    parts = sorted((folder / PART_FOLDER).glob("*.parquet"))
    if len(parts) < expected:
        raise ValueError(f"{len(parts)} of its {expected} parts are there; run predict.py again to finish it")
    return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)


def _read_record(line: str) -> dict[str, object]:
    record = json.loads(line)
    try:
        return {"image": record["image"]} | {each["label"]: each["score"] for each in record.get("findings", ())}
    except (KeyError, TypeError):
        raise ValueError("a line of JSON has no image with findings, as predict.py writes them") from None
