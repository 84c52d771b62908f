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
from cxrfpn.training.checkpoint import Place
from cxrfpn.training.feeding import training_batches
from cxrfpn.training.findings import FindingsObjective
from cxrfpn.training.pretraining import PretrainingObjective
from cxrfpn.training.recipe import Cycle, Recipe
from cxrfpn.training.run import Objective, Run, begin, stop_signals
from cxrfpn.training.run_folder import clear_leftovers, finish, write_configuration, write_epochs

# Losses are looked at, and processes agree whether to stop, every so many steps: a GPU is not to wait for it.
LOOK_STEPS = 10
OBJECTIVES: dict[str, type[Objective]] = {"findings": FindingsObjective, "pretraining": PretrainingObjective}


class TrainingError(RuntimeError):
    """Training that cannot go on; the message is one line that says why and what to do."""


class Stopped(KeyboardInterrupt):
    """Training that was asked to stop, and has kept a checkpoint."""


def train(recipe: Recipe, folder: Path, resume: bool = False) -> Place:
    """Follow a recipe to the end; the folder is then a model package with all that was measured.

    Raises:
        TrainingError: the loss is no number any more, or memory does not hold a batch.
        Stopped: Ctrl-C or SIGTERM; `resume` goes on.
        CheckpointError, SourceError, PrepareError, BackboneError: see `begin`.
    """
    run = begin(recipe, OBJECTIVES[recipe.objective](), folder, resume)
    if run.accelerator.is_main_process:
        clear_leftovers(folder)
    write_configuration(run)
    entered = None
    with stop_signals() as asked:
        while run.place.epoch < recipe.epochs:
            cycle = recipe.cycle_of(run.place.epoch)
            if cycle is not entered:
                run.objective.enter(run, cycle)
                entered = cycle
            train_epoch(run, cycle, asked)
            end_epoch(run, cycle)
            if _agreed(run, asked()):
                raise Stopped
    finish(run)
    return run.place


def train_epoch(run: Run, cycle: Cycle, asked: Callable[[], bool]) -> None:
    """The rest of an epoch, from wherever the run stands."""
    place, steps = run.place, len(run.train_loader)
    batches = training_batches(
        run.train_loader, run.recipe, cycle.image_size, place.epoch, place.step, run.accelerator.device
    )
    run.model.train()
    looked_at, waited, images = [], 0.0, 0
    with _bar(run, place, steps) as bar:
        for batch, pixel_values, patients, seconds in batches:
            rate = run.schedule.before_step(place.updates)
            loss = step_within_memory(run, batch, pixel_values, patients)
            looked_at.append((loss, batch))
            place.step, place.updates = place.step + 1, place.updates + 1
            waited, images = waited + seconds, images + images_in_step(run, batch)
            bar.update()
            checkpoint_is_due = place.step % run.recipe.checkpoint_steps == 0 and place.step < steps
            is_time_to_look = place.step % LOOK_STEPS == 0 or place.step == steps
            if not (is_time_to_look or checkpoint_is_due or run.accelerator.device.type == "cpu"):
                continue
            mean = look_at_losses(run, looked_at)
            looked_at = []
            elapsed = max(bar.format_dict["elapsed"], 1e-9)
            bar.set_postfix(loss=f"{mean:.4f}", images_s=f"{images / elapsed:.0f}", waiting=f"{waited / elapsed:.0%}")
            run.accelerator.log({"train_loss": mean, "learning_rate": rate}, step=place.updates)
            if checkpoint_is_due:
                run.save()
            if place.step % LOOK_STEPS == 0 or run.accelerator.num_processes == 1:
                if _agreed(run, asked()):
                    if not checkpoint_is_due:  # written again, it would for a moment not be there
                        run.save()
                    raise Stopped


def step_within_memory(run: Run, batch: Batch, pixel_values: Tensor, patients: Tensor) -> Tensor:
    """`train_step`; where memory does not hold a pass, the same step in twice as many passes, from now on."""
    while True:
        try:
            return train_step(run, batch, pixel_values, patients)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
        per_pass = -(-len(batch) // run.place.passes)
        if run.accelerator.num_processes > 1 or per_pass <= 1:
            raise TrainingError(
                f"memory does not hold {per_pass} images of {pixel_values.shape[-1]} pixels; "
                "lower --batch-size or raise --accumulation"
            )
        run.optimizer.zero_grad()
        run.statistics.rewind()
        run.place.passes *= 2
        clear_device_cache()
        now = -(-len(batch) // run.place.passes)
        run.accelerator.print(f"memory does not hold {per_pass} images at once: {now} from now on")


def train_step(run: Run, batch: Batch, pixel_values: Tensor, patients: Tensor) -> Tensor:
    """One optimizer step over this process's batch, in as many passes as the place says.

    Every image of a step weighs the same, however it is shared out among processes and passes.

    Returns:
        this process's share of the step's mean loss, without gradient.
    """
    accelerator, images = run.accelerator, images_in_step(run, batch)
    labels = batch.labels.to(accelerator.device)
    # A step with fewer images than passes takes a pass an image: the mean loss of no image would be NaN.
    passes = min(run.place.passes, len(batch))
    edges = [len(batch) * index // passes for index in range(passes + 1)]
    total = torch.zeros((), device=accelerator.device)
    run.statistics.begin()
    for start, stop in pairwise(edges):
        torch.manual_seed(_dropout_seed(run, batch.first + start))
        # Only the last pass brings the gradients of the processes together.
        with nullcontext() if stop == len(batch) else accelerator.no_sync(run.model):
            part = slice(start, stop)
            share = (stop - start) / images
            loss = share * run.objective.loss(run.model, pixel_values[part], patients[part], labels[part])
            accelerator.backward(loss * accelerator.num_processes)  # which takes the mean over processes
        run.statistics.after_pass(share)
        total += loss.detach()
    run.statistics.end()
    if run.recipe.clip_norm is not None:
        accelerator.clip_grad_norm_(run.model.parameters(), run.recipe.clip_norm)
    run.optimizer.step()
    run.optimizer.zero_grad()
    if run.average is not None:
        run.average.update(run.place.updates)
    return total


def images_in_step(run: Run, batch: Batch) -> int:
    """Images of a batch's step over all processes."""
    loader = run.train_loader
    usual = loader.batch_size * loader.world_size
    return usual if batch.step < len(loader) - 1 else loader.entries_an_epoch - batch.step * usual


def look_at_losses(run: Run, steps: list[tuple[Tensor, Batch]]) -> float:
    """Bring the losses of the last steps together, keep them, and give their mean.

    Raises:
        TrainingError: one is no number; names the step and its images.
    """
    own = torch.stack([loss for loss, _ in steps])
    losses = run.accelerator.reduce(own, "sum").tolist()
    run.place.losses += losses
    run.place.epoch_loss += sum(losses)
    for value, own_value, (_, batch) in zip(losses, own.tolist(), steps, strict=True):
        if value - value != 0:  # neither NaN nor infinite
            whose = "" if own_value - own_value != 0 else ", on another process's images, not"
            raise TrainingError(
                f"the loss is {value} in epoch {batch.epoch + 1}, step {batch.step + 1}{whose} on the images "
                f"{', '.join(batch.image_ids)}; lower --learning-rate, or look at these images"
            )
    return sum(losses) / len(losses)


def end_epoch(run: Run, cycle: Cycle) -> None:
    """Judge an epoch, note its figures, keep its network if it is the best so far, and keep a checkpoint."""
    place, recipe = run.place, run.recipe
    run.judged.eval()
    judgement = run.objective.judge(run, cycle)
    figures = {
        "epoch": place.epoch + 1,
        "image_size": cycle.image_size,
        "train_loss": place.epoch_loss / len(run.train_loader),
        **judgement.figures(),
    }
    run.schedule.after_epoch(figures["validation_loss"], cycle)
    place.epochs.append(figures)
    place.epoch, place.step, place.epoch_loss = place.epoch + 1, 0, 0.0
    rank = run.objective.rank(run, figures)
    is_best = place.best is None or rank > place.best
    if is_best:
        place.best = rank
    if run.accelerator.is_main_process:
        if is_best:
            run.objective.keep(run, cycle, judgement)
        write_epochs(run)
    run.accelerator.log({key: value for key, value in figures.items() if key != "epoch"}, step=place.updates)
    measured = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in judgement.figures().items())
    run.accelerator.print(
        f"epoch {figures['epoch']} of {recipe.epochs}: {cycle.image_size} px, loss {figures['train_loss']:.4f}, "
        f"{measured}{' (best so far)' if is_best else ''}"
    )
    run.save()


def _dropout_seed(run: Run, place: int) -> int:
    # A place in an epoch has one seed, whichever process and pass comes to it.
    return hash((run.recipe.seed, run.place.epoch, place)) & 0x7FFF_FFFF_FFFF_FFFF


def _agreed(run: Run, asked: bool) -> bool:
    if run.accelerator.num_processes == 1:
        return asked
    return bool(run.accelerator.reduce(torch.tensor(float(asked), device=run.accelerator.device)).item())


def _bar(run: Run, place: Place, steps: int) -> tqdm:
    return tqdm(
        total=steps,
        initial=place.step,
        desc=f"epoch {place.epoch + 1} of {run.recipe.epochs}",
        unit=" steps",
        mininterval=1,
        disable=not run.accelerator.is_main_process,
    )
