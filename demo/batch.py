"""Read many uploads, one after the other; one that cannot be read is a row that says why."""

from collections.abc import Iterable, Iterator
from typing import TypedDict

from answer_cxrfpn import Answer
from demo.reading import Reader
from demo.uploads import Upload


class BatchRow(TypedDict, total=False):
    """What came of one file of many: its findings, or the error that says why there are none."""

    name: str
    findings: Answer
    is_chest: bool
    notes: list[str]
    error: str


def read_rows(reader: Reader, uploads: Iterable[Upload], operating_point: str | None = None) -> Iterator[BatchRow]:
    """Read files and the members of zips. Age, sex and view position are those of a file's own header.

    Args:
        uploads: a `Batch`.
        operating_point: whose thresholds to call by; None for the model's default.

    Yields:
        `{"name", "findings", "is_chest", "notes"}`, or `{"name", "error"}`.

    Raises:
        UploadError: together they are too large.
    """
    for upload in uploads:
        yield _row(reader, upload, operating_point)


def _row(reader: Reader, upload: Upload, operating_point: str | None) -> BatchRow:
    if upload.error is not None:
        return {"name": upload.name, "error": upload.error}
    try:
        reading = reader.read(upload, {}, operating_point=operating_point)
    except ValueError as error:
        return {"name": upload.name, "error": str(error)}
    return {"name": upload.name, "findings": reading.findings, "is_chest": reading.is_chest, "notes": reading.notes}
