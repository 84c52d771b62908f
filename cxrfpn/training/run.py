"""A training run: what it consists of, how it starts, resumes from a checkpoint, and writes one."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration, set_seed
from torch import Tensor
from torch.optim import Optimizer
from transformers.utils import logging

from cxrfpn.data.loading import Batch, Loader
from cxrfpn.training.backbone import load_backbone_weights
from cxrfpn.training.checkpoint import Checkpoint, CheckpointError, TrainState, load_checkpoint, save_checkpoint, tidy
from cxrfpn.training.feeding import Feed, open_feed, validation_batches
from cxrfpn.training.loss import FindingsLoss
from cxrfpn.training.optimisation import RunningStatistics, Schedule, WeightAverage, make_optimizer
from cxrfpn.training.recipe import Cycle, Recipe
from cxrfpn.training.teachers import Student
from errors_cxrfpn import CxrFpnError
from modeling_cxrfpn import CxrFpnForImageClassification
from package_cxrfpn import WEIGHTS
from pipeline_cxrfpn import cpu_multiplies_bf16

CHECKPOINTS, LOGS = "checkpoints", "logs"
# Preparing a data set may take hours, in which the other processes wait for the first one.
PATIENCE = timedelta(hours=24)
# What may differ on resuming without changing the result.
_FREE_TO_CHANGE = ("workers", "checkpoint_steps", "keep_checkpoints", "trackers")


class LaunchError(CxrFpnError):
    """Raised when processes would each follow the whole recipe, in one folder."""


@dataclass
class Run:
    """All that the loop works with. `model` is `trained` as accelerate wraps it; `average` may be None."""

    recipe: Recipe
    folder: Path
    accelerator: Accelerator
    feed: Feed
    train_loader: Loader
    trained: torch.nn.Module
    model: torch.nn.Module
    average: WeightAverage | None
    optimizer: Optimizer
    schedule: Schedule
    statistics: RunningStatistics
    loss: FindingsLoss
    state: TrainState
    started: float = field(default_factory=time.monotonic)

    @property
    def network(self) -> CxrFpnForImageClassification:
        """The network that is validated and saved: the one that is trained, or its average."""
        module = self.trained if self.average is None else self.average.model
        return module.network if isinstance(module, Student) else module

    @property
    def seconds(self) -> float:
        """How long the run has taken, over all its parts."""
        return self.state.seconds + time.monotonic() - self.started

    def start_cycle(self, cycle: Cycle) -> None:
        """Prepare the loss for the epochs of a cycle, or for the rest of them."""
        self.loss.start_cycle(cycle, torch.from_numpy(self.train_loader.epoch_labels()), self.accelerator)

    def validation_batches(self, cycle: Cycle) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """Yield this process's share of the validation split, at a cycle's size of use."""
        accelerator = self.accelerator
        loader = self.feed.loader(self.recipe, "validation", accelerator.process_index, accelerator.num_processes)
        return validation_batches(loader, cycle.size_of_use, accelerator.device)

    def save(self) -> None:
        """Write a checkpoint."""
        if not self.accelerator.is_main_process:
            return
        tensors = {"model": self.trained.state_dict()}
        if self.average is not None:
            tensors["average"] = self.average.model.state_dict()
        state = replace(self.state, seconds=self.seconds)
        checkpoint = Checkpoint(
            tensors, self.optimizer.state_dict(), self.schedule.state(), state, self.recipe.as_yaml()
        )
        save_checkpoint(self.folder / CHECKPOINTS, checkpoint, self.recipe.keep_checkpoints)


def start_run(recipe: Recipe, folder: Path, resume: bool) -> Run:
    """Set a run up, or resume it from its last checkpoint.

    Raises:
        LaunchError: several processes were started that do not know of each other.
        CheckpointError: the folder holds a run and `resume` was not set, or followed another recipe.
        SourceError, PrepareError, BackboneError: the data or the first weights cannot be had.
    """
    accelerator = _accelerator(recipe, folder)
    logging.disable_progress_bar()  # Hide transformers' progress bars.
    checkpoint = _last_checkpoint(recipe, folder, resume, accelerator.print)
    with accelerator.main_process_first():  # the first one prepares what the others then find prepared
        feed = open_feed(recipe, accelerator.print)
    set_seed(recipe.seed)
    network = CxrFpnForImageClassification(recipe.config())
    if checkpoint is None:
        accelerator.print(f"starts from {load_backbone_weights(network, recipe.backbone_weights)}")
    loss = FindingsLoss(recipe.loss, recipe.findings)
    trained = loss.wrap(network).to(accelerator.device, memory_format=torch.channels_last)
    optimizer = make_optimizer(recipe, trained)
    model, optimizer = accelerator.prepare(torch.compile(trained) if recipe.compile else trained, optimizer)
    # After prepare, which may put the weights elsewhere: the average reads them where they are.
    average = WeightAverage(trained, recipe.weight_average) if recipe.weight_average else None
    loader = feed.loader(recipe, "train", accelerator.process_index, accelerator.num_processes)
    schedule = Schedule(recipe, optimizer, recipe.epochs * len(loader))
    state = TrainState(passes=recipe.accumulation)
    run = Run(recipe, folder, accelerator, feed, loader, trained, model, average, optimizer, schedule,
              RunningStatistics(trained), loss, state)  # fmt: skip
    if checkpoint is not None:
        _restore(run, checkpoint)
    # A run that was killed had logged steps that are now done again: TensorBoard is to show them once.
    accelerator.init_trackers("training", init_kwargs={"tensorboard": {"purge_step": run.state.updates + 1}})
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
    started = (folder / CHECKPOINTS).exists() or (folder / WEIGHTS).exists()
    if started and not resume:
        raise CheckpointError(f"{folder}: holds a run; resume it with --resume, or choose another --output-dir")
    checkpoint = load_checkpoint(folder / CHECKPOINTS, say)
    if checkpoint is None:
        say("no checkpoint to resume from: starting from the first step") if resume else None
        return None
    now, then = yaml.safe_load(recipe.as_yaml()), yaml.safe_load(checkpoint.recipe)
    if differing := [key for key in now if key not in _FREE_TO_CHANGE and now[key] != then.get(key)]:
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
    run.state = checkpoint.train_state
    if run.accelerator.is_main_process:  # it may have been stopped while removing others
        tidy(run.folder / CHECKPOINTS, run.state, run.recipe.keep_checkpoints)
    run.accelerator.print(f"resumes in epoch {run.state.epoch + 1}, step {run.state.step} of {len(run.train_loader)}")
