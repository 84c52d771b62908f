"""The parts of a source through the pipeline, each into one parquet file; what is in memory does not grow with them."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from answer_cxrfpn import Answer
from cxrfpn.data.schema import Row, Source, SourceError
from cxrfpn.files import write_atomically
from pipeline_cxrfpn import ChestXrayFindingsPipeline

# Batches that are read and decoded while the network works on another one; and rows that wait for being encoded.
AHEAD = 4
ROWS_A_GROUP = 4096


def table_schema(findings: Sequence[str], embeddings: bool = False) -> pa.Schema:
    """Return the columns of a part: a row an image, a score a finding, and a list `embedding` where asked for.

    `positive` holds the calls as NIH writes them (A|B). An image that could not be read has an `error`, and nulls for
    everything that was not seen.
    """
    columns = [
        *((name, pa.string()) for name in ("image_id", "patient_id", "positive", "error")),
        ("notes", pa.list_(pa.string())),
        *((finding, pa.float32()) for finding in findings),
    ]
    return pa.schema([*columns, ("embedding", pa.list_(pa.float32()))] if embeddings else columns)


class PartError(ValueError):
    """A part that cannot be written; the message is one line."""


@dataclass
class Tally:
    """Images that were written, those among them that could not be read, and a line for each part that was not."""

    images: int = 0
    unreadable: int = 0
    failed: list[str] = field(default_factory=list)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.images + other.images, self.unreadable + other.unreadable, self.failed + other.failed)


@dataclass(frozen=True)
class _Image:
    """An image on its way: `inputs` will be the network's, or the error that says why there are none."""

    image_id: str
    patient_id: str
    inputs: Future[dict[str, Any]]


@dataclass(frozen=True)
class _Batch:
    """Images of one part; a batch without any ends the part, with what the source could not read of it, if so."""

    part: str
    images: list[_Image]
    error: SourceError | None


def predict_parts(
    pipe: ChestXrayFindingsPipeline,
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
    part that the source cannot read is left out and told of; the others are done.

    Args:
        files: part -> the parquet file to write, with the columns of `table_schema`.
        embeddings: write the embedding of every image too.
        seen: told after each batch how many images it had, and 0 when a part is finished.

    Raises:
        PartError: a file cannot be written.
    """
    schema = table_schema(pipe.model.findings, embeddings)
    tally, writer = Tally(), _Writer(schema)
    for batch in _read_ahead(pipe, source, list(files), batch_size):
        if batch.images:
            writer.add(_predict(pipe, batch.images, operating_point, embeddings))
        elif batch.error is None:
            tally += writer.write(files[batch.part])
            writer = _Writer(schema)
        else:
            tally.failed.append(str(batch.error))
            writer = _Writer(schema)
        seen(len(batch.images))
    return tally


def summarise(file: Path) -> Tally:
    """What a finished part holds.

    Raises:
        PartError: it cannot be read.
    """
    try:
        errors = pq.read_table(file, columns=["error"]).column("error")
    except (OSError, pa.ArrowException) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise PartError(f"{file}: cannot be read ({reason}); delete it and run the same command again") from None
    return Tally(len(errors), len(errors) - errors.null_count)


def _read_ahead(pipe: ChestXrayFindingsPipeline, source: Source, parts: list[str], batch_size: int) -> Iterator[_Batch]:
    """The batches of all parts, part by part: one thread reads the source, and others decode what it read."""
    rows = _rows(source, parts, batch_size)
    decoders = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    with ThreadPoolExecutor(decoders) as pool, ThreadPoolExecutor(1) as reader:

        def read() -> _Batch | None:
            following = next(rows, None)
            if following is None:
                return None
            part, batch, error = following
            images = [_Image(row.image_id, row.patient_id, pool.submit(_prepare, pipe, row)) for row in batch]
            return _Batch(part, images, error)

        ahead = deque(reader.submit(read) for _ in range(AHEAD))
        while (batch := ahead.popleft().result()) is not None:
            ahead.append(reader.submit(read))
            yield batch


def _rows(source: Source, parts: list[str], batch_size: int) -> Iterator[tuple[str, list[Row], SourceError | None]]:
    for part in parts:
        try:
            rows = source.rows(part)
            while batch := list(islice(rows, batch_size)):
                yield part, batch, None
            yield part, [], None
        except SourceError as error:
            yield part, [], error


def _prepare(pipe: ChestXrayFindingsPipeline, row: Row) -> dict[str, Any]:
    radiograph = pipe.image_processor.read(row.content(), row.image_id)
    patient = {"age": row.age, "sex": row.sex, "view_position": row.view_position}
    return pipe.preprocess({"image": radiograph, **patient})


def _predict(
    pipe: ChestXrayFindingsPipeline, images: list[_Image], operating_point: str | None, embeddings: bool
) -> Iterator[dict[str, Any]]:
    """The rows of a batch, with the columns of `table_schema`."""
    inputs: dict[int, dict[str, Any]] = {}
    errors: dict[int, str] = {}
    for index, image in enumerate(images):
        try:
            inputs[index] = image.inputs.result()
        except (ValueError, OSError) as error:
            errors[index] = str(error).removeprefix(f"{image.image_id}: ")
    answers = dict(zip(inputs, _answers(pipe, list(inputs.values()), operating_point, embeddings), strict=True))
    for index, image in enumerate(images):
        row: dict[str, Any] = {"image_id": image.image_id, "patient_id": image.patient_id}
        if index in errors:
            yield {**row, "error": errors[index]}
        else:
            calls = "|".join(finding["label"] for finding in answers[index] if finding["positive"])
            scores = {finding["label"]: finding["score"] for finding in answers[index]}
            row |= {"positive": calls, "notes": answers[index].notes, **scores}
            yield row | ({"embedding": answers[index].embedding} if embeddings else {})


def _answers(
    pipe: ChestXrayFindingsPipeline, inputs: list[dict[str, Any]], operating_point: str | None, embeddings: bool
) -> list[Answer]:
    """What the pipeline does with inputs that it has prepared, in one batch."""
    if not inputs:
        return []
    tensors = {name: torch.cat([each[name] for each in inputs]) for name in ("pixel_values", "patient")}
    outputs = pipe.forward(tensors, embedding=embeddings)
    names = ("logits", "embedding") if embeddings else ("logits",)
    return [
        pipe.postprocess(
            {**{name: outputs[name][index, None] for name in names}, "notes": prepared["notes"]}, operating_point
        )
        for index, prepared in enumerate(inputs)
    ]


class _Writer:
    """A part on its way to its file: encoded group by group, since rows of Python take ten times the room."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._tally = Tally()
        self._rows: list[dict[str, Any]] = []
        self._sink = pa.BufferOutputStream()
        self._encoder = pq.ParquetWriter(self._sink, schema)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
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
                f"{path}: cannot be written ({error.strerror}); mend that and run the same command again to go on"
            ) from None
        return self._tally

    def _encode(self) -> None:
        self._encoder.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._tally += Tally(len(self._rows), sum("error" in row for row in self._rows))
        self._rows = []
