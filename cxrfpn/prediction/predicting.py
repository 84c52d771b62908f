"""Many files through an engine, in order; a bad one never stops the others."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from answer_cxrfpn import Answer
from cxrfpn.prediction.inputs import Input
from cxrfpn.prediction.stream import predict_stream
from engine_cxrfpn import Engine
from patient_cxrfpn import Patient
from pixels_cxrfpn import printable
from radiograph_cxrfpn import Radiograph


@dataclass(frozen=True)
class Prediction:
    """What came of one input: its findings, or the line that says why there are none."""

    image: str
    findings: Answer | None = None
    error: str | None = None
    radiograph: Radiograph | None = None


def predict(
    engine: Engine,
    inputs: Sequence[Input],
    *,
    batch_size: int = 16,
    operating_point: str | None = None,
    maps: bool = False,
) -> Iterator[Prediction]:
    """Predict every input, in order. With `maps`, findings carry their map and predictions their radiograph."""
    batches = (inputs[start : start + batch_size] for start in range(0, len(inputs), batch_size))
    predicted = predict_stream(
        engine,
        batches,
        _open,
        operating_point=operating_point,
        maps=lambda entry: maps,
        keep=lambda entry, radiograph: radiograph if maps else None,
    )
    for _, outcomes in predicted:
        for each in outcomes:
            # A name of bytes that are no text could be written into no table.
            name = os.fsencode(each.item.path).decode(errors="replace")
            yield Prediction(name, each.answer, each.error, each.kept)


def _open(entry: Input) -> dict[str, object]:
    try:  # refused beside its file
        Patient(**entry.patient)
    except ValueError as error:
        where = f"{entry.row}: " if entry.row else ""
        raise ValueError(f"{printable(str(entry.path))}: {where}{error}") from None
    return {"image": entry.path, **entry.patient}
