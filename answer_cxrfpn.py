"""The answer for one radiograph: its findings, and notes on how far they apply."""

from collections.abc import Iterable
from typing import Any

import numpy as np


class Answer(list[dict[str, Any]]):
    """The findings of one radiograph, the highest score first: a list of mappings, with `notes` as an attribute.

    Args:
        findings: mappings with `label`, `score`, `probability`, `threshold` and `positive`, and `map` where asked for.
        notes: short sentences on what the findings may not hold for, such as a lateral view. Normally empty.
        embedding: the pooled features of the network, an array [levels * pyramid_channels], where asked for.
    """

    def __init__(
        self, findings: Iterable[dict[str, Any]] = (), notes: Iterable[str] = (), embedding: np.ndarray | None = None
    ):
        super().__init__(findings)
        self.notes = list(notes)
        self.embedding = embedding

    def to_dict(self) -> dict[str, Any]:
        """Return {"findings": [...], "notes": [...]}, ready for JSON where the findings carry no maps."""
        return {"findings": list(self), "notes": self.notes}
