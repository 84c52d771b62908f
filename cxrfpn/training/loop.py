"""The training loop: cycles, epochs, steps, validation, keep the best, stop."""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from tqdm import tqdm

from cxrfpn.data.loading import Batch
from cxrfpn.training.checkpoint import TrainState
from cxrfpn.training.feeding import training_batches
from cxrfpn.training.recipe import Cycle, Recipe
from cxrfpn.training.run import Run, start_run, stop_signals
from cxrfpn.training.run_folder import (
    as_saved,
    clear_leftovers,
    finish,
    save_package,
    write_configuration,
    write_epochs,
)
from cxrfpn.training.validation import validate
from errors_cxrfpn import CxrFpnError

# Losses are read, and processes agree whether to stop, every so many steps, because reading makes a GPU wait.
LOG_STEPS = 10


class TrainingError(CxrFpnError):
    """Raised when training cannot continue."""


class Stopped(KeyboardInterrupt):
    """Raised when training was stopped by a signal, after a checkpoint was written."""


def train(recipe: Recipe, folder: Path, resume: bool = False) -> TrainState:
    """Follow a recipe to the end and leave a model package with its figures in the folder.

    Raises:
        TrainingError: the loss is not finite, or memory does not hold a batch.
        Stopped: after Ctrl-C or SIGTERM; run again with `resume`.
        CheckpointError, SourceError, PrepareError, BackboneError: see `start_run`.
    """
    run = start_run(recipe, folder, resume)
    if run.accelerator.is_main_process:
        clear_leftovers(folder)
    write_configuration(run)
    current = None
    with stop_signals() as stop_requested:
        while run.state.epoch < recipe.epochs:
            cycle = recipe.cycle_of(run.state.epoch)
            if cycle is not current:
                run.start_cycle(cycle)
                current = cycle
            train_epoch(run, cycle, stop_requested)
            end_epoch(run, cycle)
            if _any_process(run, stop_requested()):
                raise Stopped
    finish(run)
    return run.state


def train_epoch(run: Run, cycle: Cycle, stop_requested: Callable[[], bool]) -> None:
    """Train the rest of an epoch.

    Raises:
        Stopped: a stop was requested; a checkpoint is written.
    """
    state, steps = run.state, len(run.train_loader)
    batches = training_batches(
        run.train_loader, run.recipe, cycle.image_size, state.epoch, state.step, run.accelerator.device
    )
    run.model.train()
    pending, waited, images = [], 0.0, 0
    with _bar(run, state, steps) as bar:
        for batch, pixel_values, patients, seconds in batches:
            rate = run.schedule.before_step(state.updates)
            loss = step_within_memory(run, batch, pixel_values, patients)
            pending.append((loss, batch))
            state.step, state.updates = state.step + 1, state.updates + 1
            waited, images = waited + seconds, images + images_in_step(run, batch)
            bar.update()
            checkpoint_is_due = state.step % run.recipe.checkpoint_steps == 0 and state.step < steps
            logging_is_due = state.step % LOG_STEPS == 0 or state.step == steps
            if not (logging_is_due or checkpoint_is_due or run.accelerator.device.type == "cpu"):
                continue
            mean = collect_losses(run, pending)
            pending = []
            elapsed = max(bar.format_dict["elapsed"], 1e-9)
            bar.set_postfix(loss=f"{mean:.4f}", images_s=f"{images / elapsed:.0f}", waiting=f"{waited / elapsed:.0%}")
            run.accelerator.log({"train_loss": mean, "learning_rate": rate}, step=state.updates)
            if checkpoint_is_due:
                run.save()
            may_stop = state.step % LOG_STEPS == 0 or run.accelerator.num_processes == 1
            if may_stop and _any_process(run, stop_requested()):
                if not checkpoint_is_due:  # writing it again would remove it for a moment
                    run.save()
                raise Stopped


def step_within_memory(run: Run, batch: Batch, pixel_values: Tensor, patients: Tensor) -> Tensor:
    """Run `train_step`; where memory does not hold a pass, double the passes of this step and of all later ones."""
    while True:
        try:
            return train_step(run, batch, pixel_values, patients)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
        per_pass = -(-len(batch) // run.state.passes)
        if run.accelerator.num_processes > 1 or per_pass <= 1:
            raise TrainingError(
                f"memory does not hold {per_pass} images of {pixel_values.shape[-1]} pixels; "
                "lower --batch-size or raise --accumulation"
            )
        run.optimizer.zero_grad()
        run.statistics.rewind()
        run.state.passes *= 2
        clear_device_cache()
        now = -(-len(batch) // run.state.passes)
        run.accelerator.print(f"memory does not hold {per_pass} images at once: {now} from now on")


def train_step(run: Run, batch: Batch, pixel_values: Tensor, patients: Tensor) -> Tensor:
    """Take one optimizer step over this process's batch, in `run.state.passes` passes.

    Every image of a step weighs the same, however it is shared out among processes and passes.

    Returns:
        this process's share of the step's mean loss, without gradient.
    """
    accelerator, images = run.accelerator, images_in_step(run, batch)
    labels = batch.labels.to(accelerator.device)
    # A step with fewer images than passes takes a pass an image: the mean loss of no image would be NaN.
    passes = min(run.state.passes, len(batch))
    edges = [len(batch) * index // passes for index in range(passes + 1)]
    total = torch.zeros((), device=accelerator.device)
    run.statistics.start_step()
    for start, stop in pairwise(edges):
        torch.manual_seed(_dropout_seed(run, batch.first + start))
        # Only the last pass brings the gradients of the processes together.
        with nullcontext() if stop == len(batch) else accelerator.no_sync(run.model):
            part = slice(start, stop)
            share = (stop - start) / images
            loss = share * run.loss(run.model, pixel_values[part], patients[part], labels[part])
            accelerator.backward(loss * accelerator.num_processes)  # which takes the mean over processes
        run.statistics.after_pass(share)
        total += loss.detach()
    run.statistics.end_step()
    if run.recipe.clip_norm is not None:
        accelerator.clip_grad_norm_(run.model.parameters(), run.recipe.clip_norm)
    run.optimizer.step()
    run.optimizer.zero_grad()
    if run.average is not None:
        run.average.update(run.state.updates)
    return total


def images_in_step(run: Run, batch: Batch) -> int:
    """Count the images of a batch's step over all processes."""
    loader = run.train_loader
    usual = loader.batch_size * loader.world_size
    return usual if batch.step < len(loader) - 1 else loader.entries_an_epoch - batch.step * usual


def collect_losses(run: Run, steps: list[tuple[Tensor, Batch]]) -> float:
    """Sum the losses of the last steps over the processes, note them in the state, and return their mean.

    Raises:
        TrainingError: one is not finite; names the step and its images.
    """
    own = torch.stack([loss for loss, _ in steps])
    losses = run.accelerator.reduce(own, "sum").tolist()
    run.state.losses += losses
    run.state.epoch_loss += sum(losses)
    for value, own_value, (_, batch) in zip(losses, own.tolist(), steps, strict=True):
        if value - value != 0:  # neither NaN nor infinite
            whose = "" if own_value - own_value != 0 else ", on another process's images, not"
            raise TrainingError(
                f"the loss is {value} in epoch {batch.epoch + 1}, step {batch.step + 1}{whose} on the images "
                f"{', '.join(batch.image_ids)}; lower --learning-rate, or look at these images"
            )
    return sum(losses) / len(losses)


def end_epoch(run: Run, cycle: Cycle) -> None:
    """Validate, note the epoch's figures, save its network if it is the best so far, and write a checkpoint."""
    state, recipe, network = run.state, run.recipe, run.network
    network.eval()
    result = validate(as_saved(network), run.validation_batches(cycle), run.accelerator, run.loss)
    measured = result.figures()
    figures = {
        "epoch": state.epoch + 1,
        "image_size": cycle.image_size,
        "train_loss": state.epoch_loss / len(run.train_loader),
        **measured,
    }
    run.schedule.after_epoch(figures["validation_loss"], cycle)
    state.epochs.append(figures)
    state.epoch, state.step, state.epoch_loss = state.epoch + 1, 0, 0.0
    is_best = state.best is None or figures[recipe.choose_by] > state.best
    if is_best:
        state.best = figures[recipe.choose_by]
    if run.accelerator.is_main_process:
        if is_best:
            rows = run.feed.validation_rows(recipe)
            sizes = cycle.size_of_use, run.feed.shards.size
            save_package(network, run.folder, recipe, *sizes, result.labels, result.scores, rows)
        write_epochs(run)
    run.accelerator.log({key: value for key, value in figures.items() if key != "epoch"}, step=state.updates)
    words = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in measured.items())
    run.accelerator.print(
        f"epoch {figures['epoch']} of {recipe.epochs}: {cycle.image_size} px, loss {figures['train_loss']:.4f}, "
        f"{words}{' (best so far)' if is_best else ''}"
    )
    run.save()


def _dropout_seed(run: Run, position: int) -> int:
    # A position in an epoch has one seed, for every process and number of passes.
    return hash((run.recipe.seed, run.state.epoch, position)) & 0x7FFF_FFFF_FFFF_FFFF


def _any_process(run: Run, flag: bool) -> bool:
    """Return whether the flag is set in any process."""
    if run.accelerator.num_processes == 1:
        return flag
    return bool(run.accelerator.reduce(torch.tensor(float(flag), device=run.accelerator.device)).item())


def _bar(run: Run, state: TrainState, steps: int) -> tqdm:
    return tqdm(
        total=steps,
        initial=state.step,
        desc=f"epoch {state.epoch + 1} of {run.recipe.epochs}",
        unit=" steps",
        mininterval=1,
        disable=not run.accelerator.is_main_process,
    )
