"""Many radiographs through the pipeline: read ahead, predicted in batches; a bad one never stops the others."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from answer_cxrfpn import Answer
from cxrfpn.prediction.inputs import Input
from patient_cxrfpn import Patient
from pipeline_cxrfpn import ChestXrayFindingsPipeline
from pixels_cxrfpn import printable
from radiograph_cxrfpn import Radiograph

READERS = 4


@dataclass(frozen=True)
class Prediction:
    """What came of one input: its findings, or the line that says why there are none."""

    image: str
    findings: Answer | None = None
    error: str | None = None
    radiograph: Radiograph | None = None


def predict(
    pipe: ChestXrayFindingsPipeline,
    inputs: Sequence[Input],
    *,
    batch_size: int = 16,
    operating_point: str | None = None,
    maps: bool = False,
) -> Iterator[Prediction]:
    """Predict every input, in order. With `maps`, findings carry their map and predictions their radiograph."""
    with ThreadPoolExecutor(READERS) as pool:
        batches = [inputs[start : start + batch_size] for start in range(0, len(inputs), batch_size)]
        reading = [_start(pool, pipe, batch) for batch in batches[:1]]
        for number, batch in enumerate(batches):
            # The next batch is read while the network works on this one.
            reading.extend(_start(pool, pipe, following) for following in batches[number + 1 : number + 2])
            yield from _predict_batch(pipe, batch, reading.pop(0), operating_point, maps)


def _start(pool: ThreadPoolExecutor, pipe: ChestXrayFindingsPipeline, batch: Sequence[Input]) -> list[Future]:
    return [pool.submit(_prepare, pipe, entry) for entry in batch]


def _prepare(pipe: ChestXrayFindingsPipeline, entry: Input) -> Radiograph:
    radiograph = pipe.image_processor.read(entry.path)
    try:  # refused here, beside its file, rather than with its whole batch
        Patient(**entry.patient)
    except ValueError as error:
        where = f"{entry.row}: " if entry.row else ""
        raise ValueError(f"{printable(str(entry.path))}: {where}{error}") from None
    return radiograph


def _predict_batch(pipe, batch, reading, operating_point, maps) -> Iterator[Prediction]:
    radiographs: dict[int, Radiograph] = {}
    errors: dict[int, str] = {}
    for index, future in enumerate(reading):
        try:
            radiographs[index] = future.result()
        except ValueError as error:
            errors[index] = str(error)
    asked = [{"image": radiograph, **batch[index].patient} for index, radiograph in radiographs.items()]
    answers = pipe(asked, batch_size=len(asked), operating_point=operating_point, maps=maps) if asked else []
    findings = dict(zip(radiographs, answers, strict=True))
    for index, entry in enumerate(batch):
        # A name of bytes that are no text could be written into no table.
        name = os.fsencode(entry.path).decode(errors="replace")
        yield Prediction(name, findings.get(index), errors.get(index), radiographs.get(index) if maps else None)
