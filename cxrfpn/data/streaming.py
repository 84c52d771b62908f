"""Images straight from a source, for machines without the disk space for a local copy.

An epoch has the same order, and the same pixels to the last bit, as one from shards whose row groups are the source's
parts: the order is planned on the metadata, and an image is prepared as prepare.py would. To resume is to start at
another step; no image is lost or shown twice. What is streamed is read again in every epoch, by every process.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.preparing import prepare_image
from cxrfpn.data.schema import UNLABELLED, Row, Source, SourceError
from cxrfpn.data.shards import Images
from cxrfpn.data.sources.columns import checked
from pixels_cxrfpn import RadiographError

METADATA_THREADS = 8


class StreamedImages(Images):
    """The images of sources, read where they are asked for. A row group is a part of a source.

    Args:
        sources: opened sources that know the metadata of each part: parquet files, on disk or on the Hub.
        size: side of the images, in pixels, as prepare.py would store them.
        workers: threads that decode.
        findings: the names of the labels.

    Raises:
        SourceError: a source cannot be read, or can only be prepared.
    """

    def __init__(
        self, sources: Sequence[Source], size: int, workers: int = 2, findings: Sequence[str] = FINDINGS
    ) -> None:
        for source in sources:
            if not hasattr(source, "part_metadata"):
                raise SourceError(f"{source.name}: cannot be streamed part by part; leave out --prepared none")
        self.folder, self.source, self.size = f"stream of {sources[0].name}", sources[0].name, size
        self.findings = tuple(findings)
        self.skipped: dict[str, str] = {}
        self._workers = workers
        self._kept: dict[int, bytes] = {}
        self._places = [(source, part) for source in sources for part in source.parts()]
        with ThreadPoolExecutor(METADATA_THREADS) as pool:
            tables = list(pool.map(lambda place: place[0].part_metadata(place[1]), self._places))
        counts, owners = [len(table) for table in tables], [sources.index(source) for source, _ in self._places]
        for number in range(len(sources)):
            checked(pd.concat([table for table, owner in zip(tables, owners, strict=True) if owner == number]))
        self.groups = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.folders = np.repeat(owners, counts)
        self._index(pd.concat(tables), np.zeros(len(self.groups), np.int32))
        unlabelled = [source.name.startswith(f"{UNLABELLED}:") for source in sources]
        self.labels[np.array(unlabelled)[self.folders]] = np.nan

    def keep(self, rows: np.ndarray) -> None:
        """Keep the images of these rows in memory once they are read: those that every epoch validates on."""
        self._kept.update(dict.fromkeys(rows.tolist()))

    def read_images(self, rows: np.ndarray) -> dict[int, pa.Buffer]:
        """Row -> its image file, prepared; `source_sides` of the rows are known afterwards.

        Raises:
            SourceError: a source cannot be read, or one of its images.
        """
        rows = np.unique(rows)
        found = {row: self._kept[row] for row in rows.tolist() if self._kept.get(row) is not None}
        missing = rows[~np.isin(rows, list(found))]
        with ThreadPoolExecutor(self._workers) as pool:
            for group in np.unique(self.groups[missing]):
                wanted = missing[self.groups[missing] == group]
                ids = dict(zip(self.image_ids.take(wanted).to_pylist(), wanted.tolist(), strict=True))
                source, part = self._places[group]
                for row, (file, side) in _ahead(pool, source.rows(part, ids), self.size, 2 * self._workers):
                    found[ids[row.image_id]] = pa.py_buffer(file)
                    self.source_sides[ids[row.image_id]] = side
        self._kept.update({row: found[row] for row in rows.tolist() if row in self._kept})
        return found


def _ahead(
    pool: ThreadPoolExecutor, rows: Iterable[Row], size: int, ahead: int
) -> Iterator[tuple[Row, tuple[bytes, int]]]:
    """Yield the rows, each prepared by the pool while others are read, and at most `ahead` of them in memory."""
    waiting: deque[tuple[Row, Future[tuple[bytes, int]]]] = deque()
    for row in rows:
        waiting.append((replace(row, image=b""), pool.submit(_prepared, row, size)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def _prepared(row: Row, size: int) -> tuple[bytes, int]:
    try:
        return prepare_image(row.content(), row.image_id, size)
    except (RadiographError, OSError) as error:  # Pillow says OSError of a file that ends in its header
        reason = str(error).removeprefix(f"{row.image_id}: ")
        raise SourceError(
            f"image {row.image_id} cannot be read ({reason}); without --prepared none it is left out"
        ) from None
