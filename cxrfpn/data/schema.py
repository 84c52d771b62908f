"""The one schema: what every source yields."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from cxrfpn.choices import FIELDS
from errors_cxrfpn import CxrFpnError
from pixels_cxrfpn import RadiographError

# The columns of a source's metadata, one row an image, numbered from 0. `findings` holds tuples of names in the order
# of FINDINGS, empty for No Finding; `split` is "train" or "test"; `fold` is patient-grouped, and fold 0 of train is the
# validation set. What is unknown is missing in pandas' sense (isna()); image_id, patient_id and findings never are.
METADATA_COLUMNS = FIELDS[1:]
VALIDATION_FOLD = 0
# An optional column of metadata: in each row a tuple of the findings of which the labels say neither yes nor no.
UNKNOWN_COLUMN = "unknown"
# Sources whose rows say nothing of findings: nothing in them counts as healthy.
UNLABELLED = "unlabelled"


class SourceError(CxrFpnError):
    """Raised when a source cannot be used; the message says in one line what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Box:
    """Where a finding lies: left, top, width and height as fractions of the image's sides."""

    finding: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Row:
    """One labelled radiograph. `image` is the encoded file as it came; None in a patient field stands for unknown.

    Where the file could not be read, `image` is empty and `error` says why. `unknown` are findings that nobody looked
    for: neither present nor absent.
    """

    image: bytes
    image_id: str
    patient_id: str
    age: float | None
    sex: str | None
    view_position: str | None
    findings: tuple[str, ...]
    boxes: tuple[Box, ...] = ()
    split: str | None = None
    fold: int | None = None
    error: str | None = None
    unknown: tuple[str, ...] = ()

    def content(self) -> bytes:
        """Return the encoded file.

        Raises:
            RadiographError: it could not be read.
        """
        if self.error is not None:
            raise RadiographError(self.error)
        return self.image


class Source(Protocol):
    """Labelled radiographs that can be planned on metadata first and streamed, part by part, afterwards.

    A source travels to worker processes by pickle. Anything that it cannot read or refuses is a SourceError.
    """

    name: str

    def metadata(self) -> pd.DataFrame:
        """METADATA_COLUMNS of every image, without reading a pixel.

        Each image comes once, and no patient is on both sides of a split.
        """

    def parts(self) -> list[str]:
        """Names of the pieces (shards, archives, runs of files) that can be streamed apart, in a fixed order.

        Every image of the metadata lies in one of them: what is missing is reported here, before hours of streaming.
        """

    def rows(self, part: str, wanted: Container[str] | None = None) -> Iterator[Row]:
        """Yield the rows of a part in a fixed order, only the image ids in `wanted`; the others are not read."""
