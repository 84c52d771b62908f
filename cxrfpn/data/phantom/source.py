"""Phantoms as a source like any other."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import pandas as pd

from cxrfpn.data.phantom.drawing import draw_phantom
from cxrfpn.data.phantom.population import phantom_metadata
from cxrfpn.data.schema import Row, SourceError

IMAGES_A_PART = 250
JPEG_QUALITY = 95


@dataclass(frozen=True)
class PhantomSource:
    """`count` synthetic radiographs with about three images a patient, NIH's mix of findings, and boxes.

    Phantom i of a seed is the same image, with the same findings, for every count.

    Args:
        count: how many images.
        seed: of everything about them.
        side: of the square images, in pixels.

    Raises:
        SourceError: a count or a side too small.
    """

    count: int
    seed: int = 0
    side: int = 256

    def __post_init__(self) -> None:
        if self.count < 1 or self.side < 32 or self.seed < 0:
            raise SourceError(f"{self.name}: needs an image at least, 32 pixels a side, and a seed of 0 or more")

    @property
    def name(self) -> str:
        """As it is asked for: phantom:N, and what differs from the defaults."""
        others = [
            f"{key} {value}"
            for key, value, usual in (("seed", self.seed, 0), ("side", self.side, 256))
            if value != usual
        ]
        return f"phantom:{self.count}" + (f" ({', '.join(others)})" if others else "")

    def metadata(self) -> pd.DataFrame:
        """METADATA_COLUMNS of every phantom; a fifth of the patients are the test set, the others have folds."""
        return self._table.copy()

    @cached_property
    def _table(self) -> pd.DataFrame:
        return phantom_metadata(self.count, self.seed)

    def parts(self) -> list[str]:
        """Return runs of phantoms, named by their first one."""
        return [f"phantoms-{first:07}" for first in range(0, self.count, IMAGES_A_PART)]

    def rows(self, part: str, wanted: Container[str] | None = None) -> Iterator[Row]:
        """Draw the phantoms of a part, those not wanted left out."""
        first = int(part.removeprefix("phantoms-"))
        table = self._table.iloc[first : first + IMAGES_A_PART]
        for index, record in zip(table.index, table.to_dict("records"), strict=True):
            if wanted is None or record["image_id"] in wanted:
                yield self._row(index, record)

    def _row(self, index: int, record: dict) -> Row:
        pixels, boxes = draw_phantom(
            np.random.default_rng([self.seed, index]),
            record["age"],
            record["sex"],
            record["view_position"],
            record["findings"],
            self.side,
        )
        image = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        fold = None if pd.isna(record["fold"]) else int(record["fold"])
        return Row(image=image, boxes=boxes, **{**record, "fold": fold})
