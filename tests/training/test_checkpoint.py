"""Checkpoints: whole or not at all, the last ones kept, a damaged one passed over."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from cxrfpn.training.checkpoint import Checkpoint, CheckpointError, TrainState, load_checkpoint, save_checkpoint


def checkpoint(updates: int) -> Checkpoint:
    model = {"weight": torch.full((3, 2), float(updates)), "steps": torch.tensor(updates)}
    optimizer = {"state": {0: {"exp_avg": torch.ones(2), "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
    state = TrainState(
        epoch=1, step=2, updates=updates, best=0.7, epochs=[{"epoch": 1, "mean_auroc": 0.7}], losses=[0.1]
    )
    return Checkpoint(
        {"model": model, "average": {"weight": torch.zeros(1)}}, optimizer, {"factor": 0.5}, state, "a: 1"
    )


def test_what_is_kept_comes_back(tmp_path):
    save_checkpoint(tmp_path, checkpoint(7), keep=2)
    back = load_checkpoint(tmp_path, pytest.fail)
    assert back.train_state == checkpoint(7).train_state and back.schedule == {"factor": 0.5} and back.recipe == "a: 1"
    torch.testing.assert_close(back.tensors, checkpoint(7).tensors)
    torch.testing.assert_close(back.optimizer["state"], checkpoint(7).optimizer["state"])


def test_the_last_ones_are_kept(tmp_path):
    (tmp_path / "step-00000001.tmp").mkdir()  # left by a kill
    for updates in (5, 9, 100, 100):
        save_checkpoint(tmp_path, checkpoint(updates), keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000009", "step-00000100"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder / "model.safetensors"),
        lambda folder: flip(folder / "optimizer.pt"),
        lambda folder: (folder / "average.safetensors").unlink(),
        lambda folder: (folder / "state.json").write_text("{"),
        lambda folder: (folder / "state.json").write_text(
            (folder / "state.json").read_text().replace('"updates": 9', '"updates": 8')
        ),
    ],
)
def test_a_damaged_one_is_passed_over_with_a_line(tmp_path, damage):
    for updates in (5, 9):
        save_checkpoint(tmp_path, checkpoint(updates), keep=2)
    damage(tmp_path / "step-00000009")
    said: list[str] = []
    assert load_checkpoint(tmp_path, said.append).train_state.updates == 5
    assert len(said) == 1 and "step-00000009: is damaged" in said[0] and "\n" not in said[0]


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    kept = checkpoint(5)
    kept.optimizer["state"] = Evil()
    save_checkpoint(tmp_path / "run", kept, keep=2)
    said: list[str] = []
    assert load_checkpoint(tmp_path / "run", said.append) is None
    assert said and not (tmp_path / "ran").exists()


def test_nothing_kept_is_nothing_to_go_on_from(tmp_path):
    assert load_checkpoint(tmp_path, pytest.fail) is None


def test_no_checkpoint_is_given_up_for_one_that_is_damaged(tmp_path):
    """A run went on from step 5, since that of step 9 was damaged; what it then writes is what is kept."""
    save_checkpoint(tmp_path, checkpoint(9), keep=1)
    (tmp_path / "step-00000009" / "model.safetensors").write_bytes(b"")
    save_checkpoint(tmp_path, checkpoint(7), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000007"]
    assert load_checkpoint(tmp_path, pytest.fail).train_state.updates == 7


def test_a_checkpoint_of_an_older_version_is_refused_and_not_passed_over(tmp_path):
    folder = save_checkpoint(tmp_path, checkpoint(9), keep=1)
    state = json.loads((folder / "state.json").read_text())
    state["place"] = state.pop("train_state")
    sums = state.pop("sha256")
    state.pop("state_sha256")
    state_sha256 = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    (folder / "state.json").write_text(json.dumps({"sha256": sums, "state_sha256": state_sha256, **state}))
    with pytest.raises(CheckpointError, match="step-00000009: was written by an older version"):
        load_checkpoint(tmp_path, pytest.fail)
