"""What a training step costs: ours beside the report's, the loop beside the bare step, and the wait for data."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.ratio import Row, time_ratio
from configuration_cxrfpn import CxrFpnConfig
from cxrfpn.data.preparing import prepare
from cxrfpn.data.sources import open_source
from cxrfpn.training import loop
from cxrfpn.training.loss import compute_loss
from cxrfpn.training.recipe import Cycle, Recipe
from modeling_cxrfpn import CxrFpnForImageClassification
from pipeline_cxrfpn import cpu_multiplies_bf16

SIZE, BATCH, IMAGES = 128, 32, 700


def measure() -> list[Row]:
    """On drawn chests at 128 pixels, 32 images a step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "prepared"
        prepare(open_source(f"phantom:{IMAGES}"), folder, size=SIZE)
        recipe = Recipe(
            source=f"parquet:{folder}",
            cycles=(Cycle(1, SIZE),),
            cohort={"protocol": "patients", "validation": 0.25, "test": 0.0},
            batch_size=BATCH,
            weight_average=0.99,
            trackers=(),
        )
        run = loop.start_run(recipe, Path(name) / "run", resume=False)
        run.start_cycle(recipe.cycles[0])
        run.recipe = replace(recipe, checkpoint_steps=10**9)
        return [_step(run), *_loop(run)]


def _step(run: loop.Run) -> Row:
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.zeros(BATCH, 14)
    report = CxrFpnForImageClassification(CxrFpnConfig(image_size=SIZE)).train()
    adam = torch.optim.Adam(report.parameters(), lr=1e-3)
    ours = _bare_step(run, images.contiguous(memory_format=torch.channels_last), labels)

    def reports() -> None:
        compute_loss(report(images).logits, labels, run.recipe.loss, torch.ones(14)).backward()
        adam.step()
        adam.zero_grad()

    ratio, mine, theirs = time_ratio(ours, reports, rounds=5)
    return Row(
        f"a training step, ours / the report's (eager fp32 NCHW); bf16 in hardware: {cpu_multiplies_bf16()}",
        ratio,
        0.5,
        f"({BATCH / mine:.0f} / {BATCH / theirs:.0f} images/s at {SIZE} px)",
    )


def _loop(run: loop.Run) -> list[Row]:
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    bare = _bare_step(run, images, torch.zeros(BATCH, 14))
    steps, left = len(run.train_loader), run.train_loader.entries_an_epoch % BATCH
    last = _bare_step(run, images[:left], torch.zeros(left, 14)) if left else bare
    waited: list[float] = []

    def epoch() -> None:
        run.state.step = 0
        loop.train_epoch(run, run.recipe.cycles[0], lambda: False)

    def bare_epoch() -> None:
        for _ in range(steps - 1):
            bare()
        last()

    ratio, mine, theirs = time_ratio(epoch, bare_epoch, rounds=5)
    for *_, seconds in loop.training_batches(run.train_loader, run.recipe, SIZE, 0, 0, run.accelerator.device):
        waited.append(seconds)
        bare()
    ratio -= waited[0] / theirs  # the first batch fills the pipe, once in an epoch of hundreds
    share = sum(waited[1:]) / (mine - waited[0])
    return [
        Row("the loop's own cost: (an epoch of it - as many bare steps) / bare steps", ratio - 1, 0.03,
            f"({1000 * mine / steps:.0f} ms / {1000 * theirs / steps:.0f} ms a step)"),
        Row("waiting for data / the time of an epoch", share, 0.05),
    ]  # fmt: skip


def _bare_step(run: loop.Run, images: torch.Tensor, labels: torch.Tensor):
    patients = torch.zeros(len(images), 3)

    def step() -> None:
        loss = run.loss(run.model, images, patients, labels)
        run.accelerator.backward(loss)
        run.optimizer.step()
        run.optimizer.zero_grad()

    return step
