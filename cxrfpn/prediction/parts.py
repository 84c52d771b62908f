"""The parts of a source through an engine, each into one parquet file; what is in memory does not grow with them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from cxrfpn.choices import FIT
from cxrfpn.data.schema import Row, Source, SourceError
from cxrfpn.files import write_atomically
from cxrfpn.prediction.stream import Predicted, predict_stream
from engine_cxrfpn import Engine
from errors_cxrfpn import CxrFpnError
from thresholds_cxrfpn import ANY_FINDING, PRESENT, UNCERTAIN

# Rows that wait for being encoded.
ROWS_A_GROUP = 4096


def table_schema(findings: Sequence[str], embeddings: bool = False) -> pa.Schema:
    """Return the columns of a part: a row an image, a score a finding, and a list `embedding` where asked for.

    `positive`, `present` and `uncertain` hold the calls as NIH writes them (A|B). An image that could not be read
    has an `error`, and nulls for everything that was not seen.
    """
    columns = [
        *((name, pa.string()) for name in ("image_id", "patient_id", "positive", PRESENT, UNCERTAIN, "error")),
        ("notes", pa.list_(pa.string())),
        *((name, pa.float32()) for name in (FIT, ANY_FINDING)),
        *((finding, pa.float32()) for finding in findings),
    ]
    return pa.schema([*columns, ("embedding", pa.list_(pa.float32()))] if embeddings else columns)


class PartError(CxrFpnError):
    """A part that cannot be written; the message is one line."""


@dataclass
class Tally:
    """Images that were written, those among them that could not be read, and a line for each part that was not."""

    images: int = 0
    unreadable: int = 0
    failed: list[str] = field(default_factory=list)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.images + other.images, self.unreadable + other.unreadable, self.failed + other.failed)


class _Rows(list[Row]):
    """Rows of one part, predicted together; none at its end, with what the source could not read of it, if so."""

    def __init__(self, part: str, rows: Iterable[Row] = (), error: SourceError | None = None):
        super().__init__(rows)
        self.part, self.error = part, error


def predict_parts(
    engine: Engine,
    source: Source,
    files: Mapping[str, Path],
    *,
    batch_size: int = 16,
    operating_point: str | None = None,
    embeddings: bool = False,
    seen: Callable[[int], object] = lambda images: None,
) -> Tally:
    """Predict the parts named in `files`, in order, each into its file, which is there whole or not at all.

    A batch never holds images of two parts, so that a part's scores do not depend on which parts came before it. A
    part that the source cannot read is left out and reported; the others are done.

    Args:
        files: part -> the parquet file to write, with the columns of `table_schema`.
        embeddings: write the embedding of every image too.
        seen: called after each batch with its number of images, and with 0 when a part is finished.

    Raises:
        PartError: a file cannot be written.
    """
    schema = table_schema(engine.findings, embeddings)
    tally, writer = Tally(), _Writer(schema)
    batches: Iterator[tuple[Sequence[Row], list[Predicted[Row, None]]]] = predict_stream(
        engine,
        _batches(source, list(files), batch_size),
        _open,
        name_of=lambda row: row.image_id,
        operating_point=operating_point,
        embeddings=embeddings,
    )
    for batch, outcomes in batches:
        rows = cast(_Rows, batch)
        if rows:
            writer.add(_record(outcome, embeddings) for outcome in outcomes)
        elif rows.error is None:
            tally += writer.write(files[rows.part])
            writer = _Writer(schema)
        else:
            tally.failed.append(str(rows.error))
            writer = _Writer(schema)
        seen(len(rows))
    return tally


def summarise(file: Path) -> Tally:
    """Return the content of a finished part.

    Raises:
        PartError: it cannot be read.
    """
    try:
        errors = pq.read_table(file, columns=["error"]).column("error")
    except (OSError, pa.ArrowException) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise PartError(f"{file}: cannot be read ({reason}); delete it and run the same command again") from None
    return Tally(len(errors), len(errors) - errors.null_count)


def _batches(source: Source, parts: list[str], batch_size: int) -> Iterator[_Rows]:
    for part in parts:
        try:
            rows = source.rows(part)
            while batch := list(islice(rows, batch_size)):
                yield _Rows(part, batch)
            yield _Rows(part)
        except SourceError as error:
            yield _Rows(part, error=error)


def _open(row: Row) -> dict[str, object]:
    return {"image": row.content(), "age": row.age, "sex": row.sex, "view_position": row.view_position}


def _record(outcome: Predicted[Row, None], embeddings: bool) -> dict[str, object]:
    """Return a row of a part's table, with the columns of `table_schema`."""
    record: dict[str, object] = {"image_id": outcome.item.image_id, "patient_id": outcome.item.patient_id}
    if outcome.answer is None:
        return record | {"error": (outcome.error or "").removeprefix(f"{outcome.item.image_id}: ")}
    calls = "|".join(finding["label"] for finding in outcome.answer if finding["positive"])
    scores = {finding["label"]: finding["score"] for finding in outcome.answer}
    any_finding = outcome.answer.any_finding
    record |= {call: "|".join(outcome.answer.called(call)) for call in (PRESENT, UNCERTAIN)}
    record |= {"positive": calls, "notes": outcome.answer.notes, **scores}
    record[FIT] = outcome.answer.fit
    record[ANY_FINDING] = any_finding and any_finding["score"]
    return record | ({"embedding": outcome.answer.embedding} if embeddings else {})


class _Writer:
    """A part on its way to its file: encoded group by group, since rows of Python take ten times the room."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._tally = Tally()
        self._rows: list[dict[str, object]] = []
        self._sink = pa.BufferOutputStream()
        self._encoder = pq.ParquetWriter(self._sink, schema)

    def add(self, rows: Iterable[dict[str, object]]) -> None:
        self._rows.extend(rows)
        if len(self._rows) >= ROWS_A_GROUP:
            self._encode()

    def write(self, path: Path) -> Tally:
        """Finish the part, and tell what it holds."""
        self._encode()
        self._encoder.close()
        try:
            write_atomically(path, memoryview(self._sink.getvalue()))
        except OSError as error:
            raise PartError(
                f"{path}: cannot be written ({error.strerror}); fix that and run the same command again to continue"
            ) from None
        return self._tally

    def _encode(self) -> None:
        self._encoder.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._tally += Tally(len(self._rows), sum("error" in row for row in self._rows))
        self._rows = []
