"""The training loop: cycles, epochs, steps, validation, keep the best."""

import copy
import math
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from configuration_cxrfpn import CxrFpnConfig
from cxrfpn.data.augment import augment, draw_parameters, evaluation_view
from cxrfpn.data.schema import SourceError
from cxrfpn.data.sources import read_parquet
from cxrfpn.data.split import Split, epoch_order, load_split
from cxrfpn.evaluation.metrics import mean_auroc
from cxrfpn.training.package import Progress, save_package
from cxrfpn.training.recipe import Recipe
from modeling_cxrfpn import CxrFpnForImageClassification


def train(recipe: Recipe, output_dir: Path) -> Progress:
    """Follow a recipe from random weights to a model package in `output_dir`.

    The weights that are kept are the averaged ones of the epoch with the best mean AUROC on validation.

    Returns:
        what was measured, an entry an epoch.
    """
    accelerator = Accelerator()
    torch.manual_seed(recipe.seed)
    folder = recipe.source.removeprefix("parquet:")
    train_set = load_split(read_parquet(folder, "train"), recipe.stored_size, "train")
    validation_set = load_split(read_parquet(folder, "validation"), recipe.stored_size, "validation")
    if not (validation_set.labels.any(dim=0) & ~validation_set.labels.all(dim=0)).any():
        raise SourceError(f"{folder}: validation holds no finding with positives and negatives: no epoch can be best")
    model = CxrFpnForImageClassification(
        CxrFpnConfig(image_size=recipe.cycles[-1].image_size, pos_weight=finding_weights(train_set.labels))
    )
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.weight_average), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = sum(len(_epoch_batches(train_set, recipe, epoch)) for epoch in range(recipe.epochs))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps, pct_start=recipe.warmup
    )
    model, averaged, optimizer, schedule = accelerator.prepare(
        model.to(memory_format=torch.channels_last), averaged, optimizer, schedule
    )
    progress, epoch = Progress(), 0
    for cycle in recipe.cycles:
        for _ in range(cycle.epochs):
            loss = _train_epoch(
                accelerator, model, averaged, optimizer, schedule, train_set, recipe, epoch, cycle.image_size
            )
            scores = score_split(averaged.module, validation_set, cycle.image_size)
            progress.add(epoch, cycle.image_size, loss, mean_auroc(validation_set.labels.numpy(), scores))
            accelerator.print(progress.last_line())
            if progress.last_is_best():
                save_package(copy.deepcopy(averaged.module), output_dir, recipe, validation_set, scores, progress)
            epoch += 1
    return progress


def finding_weights(labels: Tensor) -> list[float]:
    """A weight for the positives of each finding: log(1 + N / n), which reproduces the report's table to 0.16.

    Args:
        labels: [N,14] of 0 and 1. A finding without positives is weighted as if it had one.
    """
    return torch.log1p(len(labels) / labels.sum(dim=0).clamp_min(1)).tolist()


@torch.inference_mode()
def score_split(model: CxrFpnForImageClassification, split: Split, image_size: int, batch_size: int = 64) -> np.ndarray:
    """The sigmoid scores [N,14] of a split, seen as the image processor gives it at `image_size`."""
    was_training = model.training
    model.eval()
    scores = []
    for start in range(0, len(split), batch_size):
        rows = slice(start, start + batch_size)
        pixel_values = evaluation_view(split.pixels[rows], image_size).contiguous(memory_format=torch.channels_last)
        logits = model(pixel_values.to(model.device), split.patients[rows].to(model.device)).logits
        scores.append(logits.float().sigmoid().cpu())
    model.train(was_training)
    return torch.cat(scores).numpy()


def _train_epoch(accelerator, model, averaged, optimizer, schedule, split, recipe, epoch, image_size) -> float:
    model.train()
    generator = torch.Generator().manual_seed(1_000_003 * recipe.seed + epoch)
    losses = []
    bar = tqdm(_epoch_batches(split, recipe, epoch), desc=f"epoch {epoch + 1}", unit=" batches", mininterval=5)
    for step, rows in enumerate(bar):
        parameters = draw_parameters(recipe.augmentation, len(rows), recipe.seed, epoch, first=step * recipe.batch_size)
        pixel_values = augment(split.pixels[rows], parameters, image_size)
        patients = split.patients[rows].clone()
        patients[torch.rand(patients.shape, generator=generator) < recipe.patient_dropout] = torch.nan
        loss = model(
            pixel_values.contiguous(memory_format=torch.channels_last).to(accelerator.device),
            patients.to(accelerator.device),
            split.labels[rows].to(accelerator.device),
        ).loss
        if not torch.isfinite(loss):
            images = ", ".join(split.image_ids[row] for row in rows)
            raise FloatingPointError(f"the loss is {loss.item()} in epoch {epoch + 1}, on the images {images}")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        averaged.update_parameters(accelerator.unwrap_model(model))
        losses.append(loss.item())
        bar.set_postfix(loss=f"{np.mean(losses[-20:]):.4f}")
    return float(np.mean(losses))


def _epoch_batches(split: Split, recipe: Recipe, epoch: int) -> list[Tensor]:
    order = epoch_order(split.labels, recipe.no_finding_share, recipe.seed, epoch)
    # Even shares: BatchNorm cannot learn from a last batch of one.
    return list(order.tensor_split(math.ceil(len(order) / recipe.batch_size)))
