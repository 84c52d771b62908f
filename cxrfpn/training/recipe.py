"""Every number of a run, read from YAML."""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from cxrfpn.data.augment import Augmentation


class RecipeError(ValueError):
    """A recipe that cannot be followed; the message names the key."""


@dataclass(frozen=True)
class Cycle:
    """Some epochs at one input size, in pixels."""

    epochs: int
    image_size: int


@dataclass(frozen=True)
class Recipe:
    """A run: data, schedule, optimisation, regularisation."""

    source: str
    cycles: tuple[Cycle, ...]
    stored_size: int = 128
    batch_size: int = 48
    learning_rate: float = 6e-4
    weight_decay: float = 0.05
    warmup: float = 0.1
    no_finding_share: float = 1.0
    patient_dropout: float = 0.2
    weight_average: float = 0.995
    minimum_precision: float = 0.3
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def epochs(self) -> int:
        return sum(cycle.epochs for cycle in self.cycles)


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe; an unknown key is refused by name.

    Raises:
        RecipeError: no such file, no mapping, an unknown key, or one that is missing.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from None
    values = dict(_known(values, Recipe, str(path)))
    values["cycles"] = tuple(Cycle(**_known(cycle, Cycle, f"{path}: cycles")) for cycle in values.get("cycles", ()))
    values["augmentation"] = Augmentation(
        **_known(values.get("augmentation", {}), Augmentation, f"{path}: augmentation")
    )
    if not values["cycles"] or "source" not in values:
        raise RecipeError(f"{path}: needs the keys source and cycles")
    return Recipe(**values)


def _known(values: Any, kind: type, where: str) -> dict[str, Any]:
    assert is_dataclass(kind)
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: is not a mapping of keys to values")
    names = [entry.name for entry in fields(kind)]
    if unknown := [key for key in values if key not in names]:
        raise RecipeError(f"{where}: unknown key {', '.join(map(str, unknown))}; known are {', '.join(names)}")
    return values
