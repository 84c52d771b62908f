"""The answer for one radiograph: its findings, and notes on how far they apply."""

from collections.abc import Iterable
from typing import Any


class Answer(list[dict[str, Any]]):
    """The findings of one radiograph, the highest score first: a list of mappings, with `notes` as an attribute.

    Args:
        findings: mappings with `label`, `score`, `probability`, `threshold` and `positive`, and `map` where asked for.
        notes: short sentences on what the findings may not hold for, such as a lateral view. Normally empty.
    """

    def __init__(self, findings: Iterable[dict[str, Any]] = (), notes: Iterable[str] = ()):
        super().__init__(findings)
        self.notes = list(notes)

    def to_dict(self) -> dict[str, Any]:
        """Return {"findings": [...], "notes": [...]}, ready for JSON where the findings carry no maps."""
        return {"findings": list(self), "notes": self.notes}
