"""Checkpoints: all that a run needs to resume exactly, written whole or not at all.

The random numbers of a run (order, augmentation, hidden inputs, dropout) are functions of the seed and of the position
in the data, on every rank: a position is enough to restore them. All ranks hold the same weights, so one of them
writes.
"""

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from cxrfpn.training.optimisation import ScheduleState
from errors_cxrfpn import CxrFpnError
from package_cxrfpn import file_sha256

MANIFEST = "state.json"


class CheckpointError(CxrFpnError):
    """Raised when a run folder cannot be resumed."""


@dataclass
class TrainState:
    """How far a run has come, and what was measured on the way.

    Args:
        epoch, step: from 0; the step within the epoch.
        updates: optimizer steps so far.
        passes: in how many passes a step is computed.
        best: the figure of the epoch that is kept.
        seconds: time spent so far.
        epoch_loss: sum of the losses of this epoch's steps.
        epochs: the figures of each epoch.
        losses: of each step.
    """

    epoch: int = 0
    step: int = 0
    updates: int = 0
    passes: int = 1
    best: float | None = None
    seconds: float = 0.0
    epoch_loss: float = 0.0
    epochs: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


@dataclass
class Checkpoint:
    """What a checkpoint holds; `tensors` by group ("model", "average"), `recipe` as YAML."""

    tensors: dict[str, dict[str, torch.Tensor]]
    optimizer: dict[str, object]
    schedule: ScheduleState
    train_state: TrainState
    recipe: str


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint under another name, sync it to disk, rename it, and remove all but the last `keep`.

    Raises:
        OSError: it cannot be written; nothing of it is left, and those before it stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{checkpoint.train_state.updates:08}"
    beside = folder / f"{final.name}.tmp"
    for left in folder.glob("*.tmp"):  # of a run that was killed
        shutil.rmtree(left)
    try:
        beside.mkdir()
        _write_files(beside, checkpoint)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)  # a full disk needs its space back
        error.filename = str(final)  # a full disk names no file
        raise
    if final.exists():  # the same step written again, by a run that was resumed from before it
        shutil.rmtree(final)
    os.replace(beside, final)
    _sync(folder)
    tidy(folder, checkpoint.train_state, keep)
    return final


def tidy(folder: Path, train_state: TrainState, keep: int) -> None:
    """Remove all but the checkpoint of `train_state` and the `keep` - 1 before it.

    Those after it are damaged: the run would have resumed from them.
    """
    kept = [path for path in _newest_first(folder) if path.name <= f"step-{train_state.updates:08}"][:keep]
    for path in folder.glob("step-*"):
        if path not in kept:
            shutil.rmtree(path)


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    # Made in memory and written from there: a full disk is then an OSError, whichever library's format it is.
    for group, tensors in checkpoint.tensors.items():
        content = save({name: value.contiguous() for name, value in tensors.items()})
        (folder / f"{group}.safetensors").write_bytes(content)
    optimizer = io.BytesIO()
    torch.save(checkpoint.optimizer, optimizer)
    (folder / "optimizer.pt").write_bytes(optimizer.getbuffer())
    sums = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    state = {
        "schedule": checkpoint.schedule,
        "train_state": asdict(checkpoint.train_state),
        "recipe": checkpoint.recipe,
    }
    (folder / MANIFEST).write_text(json.dumps({"sha256": sums, "state_sha256": _state_sha256(state), **state}))
    for path in [*folder.iterdir(), folder]:
        _sync(path)


def load_checkpoint(folder: Path, say: Callable[[str], object]) -> Checkpoint | None:
    """Read the newest checkpoint that is whole; None where there is none.

    A damaged one is passed over with a line. Only this folder is read, tensors and plain values only.

    Raises:
        CheckpointError: it was written by an older version.
    """
    for path in _newest_first(folder):
        try:
            return _read(path)
        except CheckpointError:
            raise
        except (OSError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
            say(f"{path}: is damaged ({' '.join(str(error).split())[:100]}); taking the one before")
    return None


def _read(path: Path) -> Checkpoint:
    manifest = json.loads((path / MANIFEST).read_text())
    sums, expected = manifest.pop("sha256"), manifest.pop("state_sha256")
    if _state_sha256(manifest) != expected:
        raise ValueError(f"{MANIFEST} was changed")
    for name, sha256 in sums.items():
        if file_sha256(path / name) != sha256:
            raise ValueError(f"{name} was changed")
    if "place" in manifest:  # its name before version 0.2
        raise CheckpointError(f"{path}: was written by an older version; finish the run with that version")
    return Checkpoint(
        tensors={file.stem: load_file(file) for file in path.glob("*.safetensors")},
        optimizer=torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True),
        schedule=manifest["schedule"],
        train_state=TrainState(**manifest["train_state"]),
        recipe=manifest["recipe"],
    )


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if path.suffix != ".tmp"), reverse=True)


def _state_sha256(state: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
