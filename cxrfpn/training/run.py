"""A run on its way: what it is made of, how it begins, goes on from a checkpoint, and keeps one."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration, set_seed
from torch import Tensor
from transformers.utils import logging

from cxrfpn.data.loading import Batch, Loader
from cxrfpn.training.backbone import load_backbone_weights
from cxrfpn.training.checkpoint import Checkpoint, CheckpointError, Place, load_checkpoint, save_checkpoint, tidy
from cxrfpn.training.feeding import Feed, judging_batches, open_feed
from cxrfpn.training.optimisation import RunningStatistics, Schedule, WeightAverage, make_optimizer
from cxrfpn.training.recipe import Cycle, Recipe
from modeling_cxrfpn import CxrFpnForImageClassification
from package_cxrfpn import WEIGHTS
from pipeline_cxrfpn import cpu_multiplies_bf16

CHECKPOINTS, LOGS = "checkpoints", "logs"
# Preparing a data set may take hours, in which the other processes wait for the first one.
PATIENCE = timedelta(hours=24)
# What may change between a run and its going on without changing its result.
_INDIFFERENT = ("workers", "checkpoint_steps", "keep_checkpoints", "trackers")


class LaunchError(RuntimeError):
    """Processes that would each follow the whole recipe, in one folder; the message is one line."""


class Objective(Protocol):
    """What a run learns: the loss that it lowers, how it is judged after each epoch, what is kept of it."""

    def wrap(self, network: CxrFpnForImageClassification, recipe: Recipe) -> torch.nn.Module:
        """What is trained: the network, or the network with what only this objective needs."""

    def enter(self, run: "Run", cycle: Cycle) -> None:
        """Get ready for the epochs of a cycle, or for the rest of them."""

    def loss(self, model: torch.nn.Module, pixel_values: Tensor, patients: Tensor, labels: Tensor) -> Tensor:
        """The mean loss over the images of a pass."""

    def judge(self, run: "Run", cycle: Cycle) -> Any:
        """What the judged module, in eval mode, makes of the validation split; its `figures()` are written down."""

    def rank(self, run: "Run", figures: dict[str, float]) -> float:
        """The figure whose highest value makes the best epoch."""

    def keep(self, run: "Run", cycle: Cycle, judgement: Any) -> None:
        """Write the best epoch's package into the run's folder; by the main process alone."""

    def finish(self, run: "Run") -> None:
        """Add to the folder what can be said at the end; by the main process alone."""


@dataclass
class Run:
    """All that the loop works with. `model` is `trained` as accelerate wraps it; `average` may be None."""

    recipe: Recipe
    objective: Objective
    folder: Path
    accelerator: Accelerator
    feed: Feed
    train_loader: Loader
    trained: torch.nn.Module
    model: torch.nn.Module
    average: WeightAverage | None
    optimizer: Any
    schedule: Schedule
    statistics: RunningStatistics
    place: Place
    started: float = field(default_factory=time.monotonic)

    @property
    def judged(self) -> torch.nn.Module:
        """What is validated and kept: `trained`, or its average."""
        return self.trained if self.average is None else self.average.model

    @property
    def seconds(self) -> float:
        """How long the run has taken, over all its parts."""
        return self.place.seconds + time.monotonic() - self.started

    def judging_batches(self, cycle: Cycle) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """This process's share of the validation split, at a cycle's size of use; see `feeding.judging_batches`."""
        accelerator = self.accelerator
        loader = self.feed.loader(self.recipe, "validation", accelerator.process_index, accelerator.num_processes)
        return judging_batches(loader, cycle.size_of_use, accelerator.device)

    def save(self) -> None:
        """Keep a checkpoint of this very place."""
        if not self.accelerator.is_main_process:
            return
        tensors = {"model": self.trained.state_dict()}
        if self.average is not None:
            tensors["average"] = self.average.model.state_dict()
        place = Place(**{**vars(self.place), "seconds": self.seconds})
        checkpoint = Checkpoint(
            tensors, self.optimizer.state_dict(), self.schedule.state(), place, self.recipe.as_yaml()
        )
        save_checkpoint(self.folder / CHECKPOINTS, checkpoint, self.recipe.keep_checkpoints)


def begin(recipe: Recipe, objective: Objective, folder: Path, resume: bool) -> Run:
    """Set a run up, or take it up where its last checkpoint left it.

    Raises:
        LaunchError: several processes were started that do not know of each other.
        CheckpointError: the folder holds a run and `resume` was not asked, or it followed another recipe.
        SourceError, PrepareError, BackboneError: the data or the first weights cannot be had.
    """
    accelerator = _accelerator(recipe, folder)
    logging.disable_progress_bar()  # of transformers, for files that are written in a moment
    checkpoint = _last_checkpoint(recipe, folder, resume, accelerator.print)
    with accelerator.main_process_first():  # the first one prepares what the others then find prepared
        feed = open_feed(recipe, accelerator.print)
    set_seed(recipe.seed)
    network = CxrFpnForImageClassification(recipe.config())
    if checkpoint is None:
        accelerator.print(f"begins with {load_backbone_weights(network, recipe.backbone_weights)}")
    trained = objective.wrap(network, recipe).to(accelerator.device, memory_format=torch.channels_last)
    optimizer = make_optimizer(recipe, trained)
    model, optimizer = accelerator.prepare(torch.compile(trained) if recipe.compile else trained, optimizer)
    # After prepare, which may put the weights elsewhere: the average reads them where they are.
    average = WeightAverage(trained, recipe.weight_average) if recipe.weight_average else None
    loader = feed.loader(recipe, "train", accelerator.process_index, accelerator.num_processes)
    schedule = Schedule(recipe, optimizer, recipe.epochs * len(loader))
    place = Place(passes=recipe.accumulation)
    run = Run(recipe, objective, folder, accelerator, feed, loader, trained, model, average, optimizer, schedule,
              RunningStatistics(trained), place)  # fmt: skip
    if checkpoint is not None:
        _restore(run, checkpoint)
    # A run that was killed had logged steps that are now done again: TensorBoard is to show them once.
    accelerator.init_trackers("training", init_kwargs={"tensorboard": {"purge_step": run.place.updates + 1}})
    return run


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM only raise a flag, so that a step is never left half done; a second Ctrl-C stops at once."""
    raised: list[int] = []

    def note(number: int, frame: object) -> None:
        if raised:
            raise KeyboardInterrupt
        raised.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(raised)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _accelerator(recipe: Recipe, folder: Path) -> Accelerator:
    fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu_multiplies_bf16()
    bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and fast)
    accelerator = Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        log_with=list(recipe.trackers),
        project_config=ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / LOGS)),
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=PATIENCE),
            # The statistics of BatchNorm are brought together by RunningStatistics.
            DistributedDataParallelKwargs(broadcast_buffers=False),
        ],
    )
    if (started := int(os.environ.get("WORLD_SIZE", "1"))) != accelerator.num_processes:
        raise LaunchError(
            f"{started} processes were started, and accelerate knows of {accelerator.num_processes}: "
            "without a GPU, set ACCELERATE_USE_CPU=true"
        )
    return accelerator


def _last_checkpoint(recipe: Recipe, folder: Path, resume: bool, say: Callable[[str], object]) -> Checkpoint | None:
    begun = (folder / CHECKPOINTS).exists() or (folder / WEIGHTS).exists()
    if begun and not resume:
        raise CheckpointError(f"{folder}: holds a run; go on with --resume, or choose another --output-dir")
    checkpoint = load_checkpoint(folder / CHECKPOINTS, say)
    if checkpoint is None:
        say("no checkpoint to go on from: beginning anew") if resume else None
        return None
    now, then = yaml.safe_load(recipe.as_yaml()), yaml.safe_load(checkpoint.recipe)
    if differing := [key for key in now if key not in _INDIFFERENT and now[key] != then.get(key)]:
        raise CheckpointError(
            f"{folder}: followed another recipe ({', '.join(differing)}); choose another --output-dir"
        )
    return checkpoint


def _restore(run: Run, checkpoint: Checkpoint) -> None:
    run.trained.load_state_dict(checkpoint.tensors["model"])
    if run.average is not None:
        run.average.model.load_state_dict(checkpoint.tensors["average"])
    run.optimizer.load_state_dict(checkpoint.optimizer)
    run.schedule.load_state(checkpoint.schedule)
    run.place = checkpoint.place
    if run.accelerator.is_main_process:  # stopped as it was removing others, it goes on with that too
        tidy(run.folder / CHECKPOINTS, run.place, run.recipe.keep_checkpoints)
    run.accelerator.print(f"goes on in epoch {run.place.epoch + 1}, step {run.place.step} of {len(run.train_loader)}")
