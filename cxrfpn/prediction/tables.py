"""Predictions as a table for people, JSON lines, CSV or Parquet."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from answer_cxrfpn import Answer
from cxrfpn.cells import write_csv
from cxrfpn.choices import FIT, FORM_NAMES
from cxrfpn.files import written_beside
from cxrfpn.prediction.inputs import InputError
from cxrfpn.prediction.predicting import Prediction
from pixels_cxrfpn import printable
from thresholds_cxrfpn import ANY_FINDING, PRESENT, UNCERTAIN

# Before the scores of a row: the calls as NIH writes them (A|B), an error where there is no answer, and notes.
FIRST_COLUMNS = ("image", "positive", PRESENT, UNCERTAIN, "error", "notes", FIT, ANY_FINDING)


def write_predictions(
    predictions: Iterable[Prediction], form: str, output: Path | None, findings: Sequence[str]
) -> None:
    """Write predictions as they come, to `output` or, for None, to standard output.

    Args:
        findings: the model's, each a column of CSV and Parquet.
        form: one of FORMS.
        output: written beside and renamed when it is complete, so that it is never half a file.

    Raises:
        InputError: parquet without a file to write to, or a file that cannot be written.
    """
    if output is None:
        if form == "parquet":
            raise InputError("parquet is no text: name a file with --output")
        FORMS[form](predictions, sys.stdout, findings)
        return
    try:
        with written_beside(output) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            FORMS[form](predictions, file, findings)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror})") from None


def _write_table(predictions: Iterable[Prediction], file: TextIO, findings: Sequence[str]) -> None:
    for prediction in predictions:
        if prediction.findings is None:  # the line names the file itself
            print(f"{printable(prediction.error or '')}\n", file=file)
            continue
        print(printable(prediction.image), file=file)
        width = max(20, *(len(name) + 2 for name in findings))
        print(f"  {'finding':<{width}}{'score':>7}{'threshold':>11}{'probability':>13}  {'call':<9}", file=file)
        first = [] if prediction.findings.any_finding is None else [prediction.findings.any_finding]
        for finding in [*first, *prediction.findings]:
            probability = "" if finding["probability"] is None else f"{finding['probability']:.3f}"
            calls = f"{finding['call'] or '':<9}" + ("  positive" if finding["positive"] else "")
            numbers = f"{finding['score']:>7.3f}{finding['threshold']:>11.3f}{probability:>13}"
            print(f"  {printable(finding['label']):<{width}}{numbers}  {calls}".rstrip(), file=file)
        if prediction.findings.fit is not None:
            print(f"  fit: {prediction.findings.fit:.2f}", file=file)
        for note in prediction.findings.notes:
            print(f"  note: {printable(note)}", file=file)
        print(file=file)


def _write_json(predictions: Iterable[Prediction], file: TextIO, findings: Sequence[str]) -> None:
    for prediction in predictions:
        if prediction.findings is None:
            record: dict[str, object] = {"image": prediction.image, "error": prediction.error}
        else:
            record = {"image": prediction.image, **prediction.findings.to_dict()}
        print(json.dumps(record), file=file, flush=True)


def _write_csv(predictions: Iterable[Prediction], file: TextIO, findings: Sequence[str]) -> None:
    columns = [*FIRST_COLUMNS, *findings]
    rows = _wide_rows(predictions, " ".join)
    write_csv(file, columns, ([row.get(column) for column in columns] for row in rows))


def _write_parquet(predictions: Iterable[Prediction], file: TextIO, findings: Sequence[str]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError("parquet needs pyarrow: pip install pyarrow") from None
    kinds = dict.fromkeys((FIT, ANY_FINDING, *findings), pa.float64()) | {"notes": pa.list_(pa.string())}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in (*FIRST_COLUMNS, *findings)])
    pq.write_table(pa.Table.from_pylist(list(_wide_rows(predictions)), schema), file.buffer)


def _wide_rows(
    predictions: Iterable[Prediction], write_notes: Callable[[list[str]], object] = list
) -> Iterator[dict[str, object]]:
    for prediction in predictions:
        findings = prediction.findings or Answer()
        yield {
            "image": prediction.image,
            "positive": "|".join(finding["label"] for finding in findings if finding["positive"]),
            **{call: "|".join(findings.called(call)) for call in (PRESENT, UNCERTAIN)},
            "error": prediction.error,
            "notes": write_notes(findings.notes),
            FIT: findings.fit,
            ANY_FINDING: findings.any_finding and findings.any_finding["score"],
            **{finding["label"]: finding["score"] for finding in findings},
        }


FORMS: dict[str, Callable[[Iterable[Prediction], TextIO, Sequence[str]], None]] = dict(
    zip(FORM_NAMES, (_write_table, _write_json, _write_csv, _write_parquet), strict=True)
)
