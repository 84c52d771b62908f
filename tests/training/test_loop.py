"""What happens when training cannot continue, or should not: in this process, with the real loop."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cxrfpn.training import loop
from cxrfpn.training.checkpoint import CheckpointError
from cxrfpn.training.loop import TrainingError, train
from cxrfpn.training.loss import FindingsLoss
from cxrfpn.training.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
ONE_EPOCH = [{"epochs": 1, "image_size": 64}]


def last_losses(folder: Path) -> list[float]:
    last = max((folder / "checkpoints").glob("step-*"))
    return json.loads((last / "state.json").read_text())["train_state"]["losses"]


def test_passes_change_neither_the_images_nor_the_losses(write_recipe, tmp_path):
    """Without BatchNorm's view of its own pass, which is what differs, a step in 4 passes is the step in one.

    The last step has 3 images: one pass of the 4 would have none.
    """
    losses, changes = [], {"cycles": ONE_EPOCH, "batch_size": 14}
    for accumulation in (1, 4):
        recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", accumulation=accumulation, **changes))
        run = loop.start_run(recipe, tmp_path / f"run{accumulation}", resume=False)
        run.start_cycle(recipe.cycles[0])
        run.model.eval()  # running statistics instead of the pass's own
        assert run.train_loader.entries_an_epoch % 14 == 3
        steps = []
        for batch, pixel_values, patients, _ in loop.training_batches(
            run.train_loader, recipe, 64, 0, 0, torch.device("cpu")
        ):
            steps.append(loop.train_step(run, batch, pixel_values, patients).item())
            run.state.updates += 1
        losses.append(steps)
    assert len(losses[0]) == 8 and losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_a_run_whose_last_step_has_fewer_images_than_passes_ends_and_resumes(write_recipe, tmp_path):
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", batch_size=14, accumulation=4, checkpoint_steps=1))
    state = train(recipe, tmp_path / "run")
    assert state.passes == 4 and all(loss == loss for loss in state.losses)
    (newest,) = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1:]
    shutil.rmtree(newest)  # the step before the last one is taken up again
    assert train(recipe, tmp_path / "run", resume=True).losses == state.losses


def test_the_weights_of_the_loss_count_what_an_epoch_shows(write_recipe, tmp_path):
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", cycles=ONE_EPOCH, no_finding_share=0.4))
    run = loop.start_run(recipe, tmp_path / "run", resume=False)
    run.start_cycle(recipe.cycles[0])
    for epoch in (0, 3):
        labels = torch.cat([batch.labels for batch in run.train_loader.batches(epoch)])
        weights = torch.log1p(len(labels) / labels.sum(dim=0).clamp_min(1))
        torch.testing.assert_close(run.loss.pos_weight, weights)
    assert len(labels) < (run.feed.plan["split"] == "train").sum()


def test_what_is_kept_is_the_average_of_the_weights(write_recipe, tmp_path, monkeypatch):
    step, name, seen = loop.train_step, "head.0.weight", []

    def watched(run, *args):
        weight = dict(run.model.named_parameters())[name]
        seen.extend([] if seen else [weight.detach().clone()])
        loss = step(run, *args)
        seen.append(weight.detach().clone())
        return loss

    monkeypatch.setattr(loop, "train_step", watched)
    train(read_recipe(write_recipe(tmp_path / "recipe.yaml", cycles=ONE_EPOCH)), tmp_path / "run")
    average = seen[0]
    for number, weight in enumerate(seen[1:]):
        decay = min(0.9, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * weight
    kept = load_file(tmp_path / "run" / "model.safetensors")[name].float()
    half = {"rtol": 1e-3, "atol": 1e-5}  # weights are kept in half precision
    assert len(seen) == 1 + 7 and not torch.allclose(seen[-1], average, **half)
    torch.testing.assert_close(kept, average, **half)


def test_a_loss_that_is_no_number_stops_and_names_step_and_images(write_recipe, tmp_path, monkeypatch):
    def poisoned(*args):
        return compute(*args) * (float("nan") if len(calls) == 3 else 1.0)

    compute, step, calls = FindingsLoss.__call__, loop.train_step, []
    monkeypatch.setattr(loop, "train_step", lambda *args: (calls.append(args[1]), step(*args))[1])
    monkeypatch.setattr(FindingsLoss, "__call__", poisoned)
    with pytest.raises(TrainingError, match="the loss is nan in epoch 1, step 3 on the images ") as caught:
        train(read_recipe(write_recipe(tmp_path / "recipe.yaml")), tmp_path / "run")
    assert all(name in str(caught.value) for name in calls[2].image_ids)
    assert not (tmp_path / "run" / "checkpoints").exists()  # nothing poisoned is kept


def test_a_batch_too_large_for_memory_is_halved_and_said(write_recipe, tmp_path, monkeypatch, capsys):
    compute, widths, most = FindingsLoss.__call__, [], 4

    def greedy(self, model, pixel_values, *args):
        if len(pixel_values) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        widths.append(len(pixel_values))
        return compute(self, model, pixel_values, *args)

    monkeypatch.setattr(FindingsLoss, "__call__", greedy)
    state = train(read_recipe(write_recipe(tmp_path / "recipe.yaml", cycles=ONE_EPOCH)), tmp_path / "run")
    said = capsys.readouterr().out
    assert "memory does not hold 16 images at once: 8 from now on" in said and "8 images at once: 4 from" in said
    assert state.passes == 4 and max(widths) == 4
    most = 0
    with pytest.raises(TrainingError, match="memory does not hold 1 images of 64 pixels; lower --batch-size"):
        train(read_recipe(write_recipe(tmp_path / "recipe.yaml")), tmp_path / "other")


def test_a_folder_that_holds_a_run_is_not_overwritten(write_recipe, tmp_path):
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", cycles=ONE_EPOCH))
    train(recipe, tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds a run; resume it with --resume, or choose another --output-dir"):
        train(recipe, tmp_path / "run")
    other = read_recipe(write_recipe(tmp_path / "recipe.yaml", cycles=ONE_EPOCH, learning_rate=2e-3))
    longer = read_recipe(write_recipe(tmp_path / "recipe.yaml", workers=1))
    for changed, key in ((other, "learning_rate"), (longer, "cycles")):
        with pytest.raises(CheckpointError, match=rf"followed another recipe \({key}\)"):
            train(changed, tmp_path / "run", resume=True)
    files = {"README.md", "thresholds.json", "validation_metrics.csv", "test_metrics.csv", "configuration.txt"}
    assert files <= {path.name for path in (tmp_path / "run").iterdir()}
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["source"] == "phantom:150"
    plots = {path.name for path in (tmp_path / "run" / "plots").iterdir()}
    assert {"training_loss.png", "training_epochs.png", "roc.png"} <= plots
    configuration = (tmp_path / "run" / "configuration.txt").read_text()
    for said in ("fingerprint", "torch 2.", "seed         0", "took", "cohort:", "source       parquet:"):
        assert said in configuration


def test_ctrl_c_keeps_a_checkpoint_and_exits_130(write_recipe, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", cycles=[{"epochs": 200, "image_size": 64}])
    process = subprocess.Popen(
        [sys.executable, "train.py", str(recipe), "--output-dir", str(tmp_path / "run")],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(1200):
            if list((tmp_path / "run").glob("checkpoints/step-*")):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in said
    assert f"stopped, with a checkpoint in {tmp_path / 'run'}; continue it with --resume" in said
    steps = len(last_losses(tmp_path / "run"))
    assert int(max((tmp_path / "run" / "checkpoints").glob("step-*")).name[5:]) == steps > 0
