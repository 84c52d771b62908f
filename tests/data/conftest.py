"""What the tests of the data share: prepared folders, written shard by shard."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import Box, Row
from cxrfpn.data.shards import MANIFEST, SHARD_FOLDER, shard_paths, write_shard


def _row(number: int, size: int) -> Row:
    """A grey square whose brightness, and whose brighter left half, tell its number; every third has no finding."""
    pixels = np.full((size, size), number % 200, np.uint8)
    pixels[:, : size // 2] += 50
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    patient = number // 4
    findings = tuple(FINDINGS[index] for index in range(14) if number % 3 and number % (index + 2) == 0)
    return Row(
        image=file.getvalue(),
        image_id=f"image{number:05}",
        patient_id=f"patient{patient}",
        age=None if number % 7 == 0 else float(number % 110),
        sex=(None, "M", "F")[number % 3],
        view_position=(None, "PA", "AP")[number % 5 % 3],
        findings=findings,
        boxes=tuple(Box(finding, 0.25, 0.5, 0.125, 0.25) for finding in findings),
        split="test" if patient % 5 == 0 else "train",
        fold=None if patient % 5 == 0 else patient % 10,
    )


@pytest.fixture(scope="session")
def write_prepared() -> Callable[..., list[Row]]:
    """Write a prepared folder and give its rows, in their order: `write_prepared(folder, rows_of_each_shard, size)`."""

    def write(folder: Path, counts: tuple[int, ...], size: int = 16, source: str = "drawn") -> list[Row]:
        (folder / SHARD_FOLDER).mkdir(parents=True)
        parts = [str(index) for index in range(len(counts))]
        (folder / MANIFEST).write_text(json.dumps({"source": source, "size": size, "seed": 0, "parts": parts}))
        rows = [_row(number, size) for number in range(sum(counts))]
        for path, last, count in zip(shard_paths(folder, len(counts)), np.cumsum(counts), counts, strict=True):
            skipped = {f"unreadable{last}": "the file is empty"} if count else {}
            write_shard(path, [(row, 64) for row in rows[last - count : last]], skipped)
        return rows

    return write
