"""Every number of a run, read from YAML into typed dataclasses; any of them can be changed on the command line."""

import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from configuration_cxrfpn import FINDINGS, CxrFpnConfig
from cxrfpn.data.augment import Augmentation
from cxrfpn.data.cohort import PROTOCOLS, CohortProtocol
from cxrfpn.data.schema import UNLABELLED
from errors_cxrfpn import CxrFpnError

# The value of `prepared` that makes no local copy.
STREAMED = "none"
# Keys of earlier versions, by their whole name, and what to do about them.
EARLIER_KEYS = {
    "cycles.judged_size": "is called validation_size now",
    "objective": "no longer exists, because every run learns findings; leave it out",
}


class RecipeError(CxrFpnError):
    """Raised when a recipe cannot be followed; the message names the file and the key."""


@dataclass(frozen=True)
class Cycle:
    """Some epochs at one input size, in pixels; `pos_weight` overrides the loss weights of some findings.

    validation_size: the size at which they are validated, and the model is then used; image_size where it is None. A
    random crop shows a chest larger than the whole view does, and a larger view makes up for that (Touvron et al.,
    "Fixing the train-test resolution discrepancy", 2019).
    """

    epochs: int
    image_size: int
    validation_size: int | None = None
    pos_weight: dict[str, float] = field(default_factory=dict)

    @property
    def size_of_use(self) -> int:
        """The side in pixels at which the model is validated and used."""
        return self.validation_size or self.image_size


@dataclass(frozen=True)
class Loss:
    """What is minimised.

    pos_weight: "balanced" weights the positives of a finding by log(1 + N / n), the rule that comes nearest to the
    report's table; "none" leaves them alone. label_smoothing: share of each label that is given to its opposite.
    negative_focus: the exponent that plays down easy negatives (the asymmetric loss of Ridnik et al., 2021,
    with its margin of 0.05); 0 is plain cross-entropy. teachers: trained packages (folders or Hub ids), whose mean
    scores are learnt beside the labels; teacher_share: 0 to 1, how much of the loss they are. feature_weight: weight
    of a further loss that brings the backbone's features to the teachers' (1 - cosine, through projections that are
    discarded); 0 leaves it out.
    """

    pos_weight: Literal["balanced", "none"] = "balanced"
    label_smoothing: float = 0.0
    negative_focus: float = 0.0
    teachers: tuple[str, ...] = ()
    teacher_share: float = 0.5
    feature_weight: float = 0.0

    def __post_init__(self) -> None:
        _require(0 <= self.teacher_share <= 1, "loss: teacher_share must lie in 0 to 1")
        _require(self.feature_weight >= 0, "loss: feature_weight must be 0 or more")
        _require(not self.feature_weight or bool(self.teachers), "loss: feature_weight needs teachers")


@dataclass(frozen=True)
class FurtherSource:
    """A source beside a run's own: its images are trained on, and replace those of the same id in the run's own source.

    share: 0 to 1, how many of its images an epoch shows, drawn again for each epoch. validate: its validation fold is
    validated on too; otherwise that fold is left out, and so is every image of a patient of validation or test.
    """

    source: str
    share: float = 1.0
    validate: bool = False

    def __post_init__(self) -> None:
        _require(0 < self.share <= 1, "more_sources: share must lie in 0 to 1, without 0")


@dataclass(frozen=True)
class Recipe:
    """A run: its data, network, optimisation and regularisation.

    findings: the names of what the network learns, the 14 of NIH or those of a table of your own.
    source: what `open_source` opens; it is prepared once at `stored_size` pixels, into `prepared` (by default a folder
    under data/ named after both); `prepared: none` streams it instead. columns: field -> column, where the
    source has names of its own. more_sources: others that are trained on beside it. cohort: a protocol and its
    settings.
    backbone_weights: "imagenet", "none", a file, or a package of ours (folder or Hub id), whose every fitting tensor is
    taken. batch_size: images of one process in one step; accumulation: in how many passes they are computed.
    weight_average: decay of the moving average of the weights, which is then validated and kept; 0 keeps the trained
    weights themselves. choose_by: the validation figure whose best epoch is kept; auroc_within_sharpness is the mean of
    the mean AUROC within sharp and within blurred images, where a model gains nothing by telling one from the other.
    precision: "auto" takes bf16
    where the hardware multiplies it. checkpoint_steps: a checkpoint every so many steps, besides one an epoch.
    """

    source: str
    cycles: tuple[Cycle, ...]
    findings: tuple[str, ...] = FINDINGS
    stored_size: int = 256
    prepared: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    more_sources: tuple[FurtherSource, ...] = ()
    cohort: dict[str, Any] = field(default_factory=lambda: {"protocol": "official"})
    no_finding_share: float = 1.0
    backbone_weights: str = "none"
    network: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 48
    accumulation: int = 1
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["cosine", "plateau"] = "cosine"
    warmup: float = 0.0
    clip_norm: float | None = None
    weight_average: float = 0.0
    patient_dropout: float = 0.0
    choose_by: Literal["mean_auroc", "auroc_within_sharpness", "macro_f1", "precision"] = "mean_auroc"
    minimum_precision: float = 0.3
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False
    workers: int = 2
    checkpoint_steps: int = 200
    keep_checkpoints: int = 2
    trackers: tuple[str, ...] = ("tensorboard",)
    seed: int = 0
    loss: Loss = field(default_factory=Loss)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        _require(bool(self.cycles), "cycles: needs at least one")
        for cycle in self.cycles:
            _require(cycle.epochs > 0, "cycles: epochs must be over 0")
            _require(cycle.image_size >= 64, "cycles: image_size must be 64 or more")
            _require(cycle.size_of_use >= 64, "cycles: validation_size must be 64 or more")
            _require(set(cycle.pos_weight) <= set(self.findings), "cycles: pos_weight names what is no finding")
        for name in ("batch_size", "accumulation", "stored_size", "workers", "checkpoint_steps", "keep_checkpoints"):
            _require(getattr(self, name) > 0, f"{name}: must be over 0")
        _require(
            self.accumulation <= self.batch_size, "accumulation: must not be above batch_size, the images of a step"
        )
        for name in ("no_finding_share", "warmup", "patient_dropout", "minimum_precision"):
            _require(0 <= getattr(self, name) <= 1, f"{name}: must lie in 0 to 1")
        _require(0 <= self.weight_average < 1, "weight_average: must lie in 0 to 1, without 1")
        _require(not self.source.startswith(f"{UNLABELLED}:"), f"{self.source}: has no labels to validate on")
        for name in (further.source for further in self.more_sources if not self.loss.teachers):
            _require(not name.startswith(f"{UNLABELLED}:"), f"{name}: has no labels; only teachers can use it")
        _require(self.cohort.get("protocol") in PROTOCOLS, f"cohort: protocol is one of {', '.join(PROTOCOLS)}")
        self.protocol(), self.config()

    @property
    def epochs(self) -> int:
        """The epochs of all cycles together."""
        return sum(cycle.epochs for cycle in self.cycles)

    def cycle_of(self, epoch: int) -> Cycle:
        """Return the cycle that an epoch (from 0) belongs to."""
        for cycle in self.cycles:
            if epoch < cycle.epochs:
                return cycle
            epoch -= cycle.epochs
        raise IndexError(epoch)

    def protocol(self) -> CohortProtocol:
        """Return the cohort's protocol with its settings."""
        settings = {key: value for key, value in self.cohort.items() if key != "protocol"}
        return _read(settings, PROTOCOLS[self.cohort["protocol"]], "cohort")

    def config(self, **measured: object) -> CxrFpnConfig:
        """Return the network's configuration, at the size of use of the last cycle."""
        known = [entry.name for entry in fields(CxrFpnConfig)]
        _require(set(self.network) <= set(known), f"network: CxrFpnConfig has no {set(self.network) - set(known)}")
        try:
            return CxrFpnConfig(
                **{
                    "image_size": self.cycles[-1].size_of_use,
                    "id2label": dict(enumerate(self.findings)),
                    **self.network,
                    **measured,
                }
            )
        except (TypeError, ValueError) as error:
            raise RecipeError(f"network: {error}") from None

    def as_yaml(self) -> str:
        """Return the whole recipe, defaults included, in a form that `read_recipe` reads."""
        plain: dict[str, Any] = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }
        for name in ("blur_sigma", "jpeg_quality"):
            plain["augmentation"][name] = list(plain["augmentation"][name])
        return yaml.safe_dump(plain, sort_keys=False, width=110)


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and what the command line changes in it.

    Args:
        path: a YAML file.
        overrides: `--key value` pairs; a dot reaches inside (`--loss.label_smoothing 0.1`), dashes may stand for
            underscores, values are YAML.

    Raises:
        RecipeError: no such file, no mapping, a key that is unknown or missing, a value of another type.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: is not a mapping of keys to values")
    for key, value in _pairs(overrides):
        _put(values, key, value)
    try:
        return _read(values, Recipe, "")
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def _pairs(overrides: Sequence[str]) -> list[tuple[str, object]]:
    pairs = []
    words = [part for word in overrides for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for index in range(0, len(words), 2):
        if not words[index].startswith("--") or index + 1 == len(words):
            raise RecipeError(f"{words[index]}: give recipe keys as --key value")
        try:
            pairs.append((words[index][2:].replace("-", "_"), yaml.safe_load(words[index + 1])))
        except yaml.YAMLError:
            raise RecipeError(f"{words[index]}: {words[index + 1]!r} is not YAML") from None
    return pairs


def _put(values: dict, key: str, value: object) -> None:
    *outer, last = key.split(".")
    for name in outer:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--{key}: {name} has no keys inside")
    values[last] = value


def _read(values: Any, kind: Any, where: str) -> Any:
    """Turn a YAML value into an instance of an annotated type, or raise a RecipeError that names the place."""
    if isinstance(kind, type) and is_dataclass(kind):
        return _read_dataclass(values, kind, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        _require(values in inner, f"{where}: must be one of {', '.join(map(str, inner))}, not {values!r}")
        return values
    if origin in (Union, types.UnionType):
        return None if values is None else _read(values, next(each for each in inner if each is not type(None)), where)
    if origin is tuple:
        _require(isinstance(values, list | tuple), f"{where}: must be a list, not {values!r}")
        kinds = [inner[0]] * len(values) if inner[1:] == (Ellipsis,) else inner
        _require(len(kinds) == len(values), f"{where}: needs {len(kinds)} values, not {len(values)}")
        pairs = enumerate(zip(values, kinds, strict=True))
        return tuple(_read(value, each, f"{where}[{index}]") for index, (value, each) in pairs)
    if origin in (dict, Mapping):
        _require(isinstance(values, Mapping), f"{where}: must be a mapping, not {values!r}")
        return {str(key): value if inner[1] is Any else _read(value, inner[1], f"{where}.{key}")
                for key, value in values.items()}  # fmt: skip
    return _read_plain(values, kind, where)


def _read_plain(value: Any, kind: type, where: str) -> Any:
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3, without a dot, as a string
        except (TypeError, ValueError):
            pass
    elif isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    raise RecipeError(f"{where}: must be {kind.__name__}, not {value!r}")


def _read_dataclass(values: Any, kind: type, where: str) -> Any:
    _require(isinstance(values, Mapping), f"{where or 'the recipe'}: must be a mapping, not {values!r}")
    kinds, prefix = get_type_hints(kind), f"{where}." if where else ""
    known = [entry.name for entry in fields(kind)]
    for key in values:
        if message := EARLIER_KEYS.get(re.sub(r"\[\d+\]", "", f"{prefix}{key}")):
            raise RecipeError(f"{prefix}{key}: {message}")
    if unknown := [str(key) for key in values if key not in known]:
        raise RecipeError(f"unknown key {', '.join(prefix + key for key in unknown)}; known are {', '.join(known)}")
    try:
        return kind(**{name: _read(value, kinds[name], prefix + name) for name, value in values.items()})
    except TypeError as error:  # the dataclass itself says which key is missing
        raise RecipeError(f"{where or 'the recipe'}: {str(error).split('__init__() ')[-1]}") from None
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from None


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RecipeError(otherwise)
