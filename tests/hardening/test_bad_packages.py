"""Model packages that are cut, altered, mixed up or malicious: one line that says what is wrong and what to do."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from configuration_cxrfpn import FINDINGS
from loading_cxrfpn import load_pipeline
from modeling_cxrfpn import CxrFpnForImageClassification
from tests.hardening.test_corpus import CONTROLS
from tests.hubs.loopback import LoopbackHub
from tests.hubs.repositories import Answer, Repo
from tests.ports import free_port
from thresholds_cxrfpn import PackageError

WEIGHTS, THRESHOLDS = "model.safetensors", "thresholds.json"
MODEL = "someone/cxr"
EVEN = dict.fromkeys(FINDINGS, 0.5)


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    return shutil.copytree(package, tmp_path / "copy")


class Malice:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.mark),)


def change_json(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def cut(path: Path, keep: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def with_nan(weights: dict[str, torch.Tensor]) -> None:
    weights["head.3.bias"][3] = float("nan")


def with_half(weights: dict[str, torch.Tensor]) -> None:
    for name in sorted(weights)[::2]:
        del weights[name]


def with_other_shapes(weights: dict[str, torch.Tensor]) -> None:
    weights["head.3.weight"] = weights["head.3.weight"][:5].clone()


def as_pickle(folder: Path, name: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Malice(folder / "pwned")))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "lacks config.json; copy the whole package again"),
    "config cut": (lambda folder: cut(folder / "config.json", 0.5), "config.json"),
    "config of nothing": (lambda folder: (folder / "config.json").write_text("[]"), "copy the whole package"),
    "config of another model": (lambda folder: change_json(folder, "config.json", model_type="vit"), "'vit', not 'cxr"),
    "other labels": (
        lambda folder: change_json(folder, "config.json", id2label={str(n): f"L{n}" for n in range(14)}, label2id=None),
        "lacks L0",
    ),
    "fewer labels": (
        lambda folder: change_json(folder, "config.json", id2label={"0": "Mass"}, label2id={"Mass": 0}),
        "copy the whole package again",
    ),
    "config of a larger network": (lambda folder: change_json(folder, "config.json", pyramid_channels=16), "copy"),
    "config of words": (lambda folder: change_json(folder, "config.json", growth_rate="many"), "copy"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "lacks model.safetensors"),
    "empty weights": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "copy the whole package again"),
    "weights cut": (lambda folder: cut(folder / WEIGHTS, 0.7), "copy the whole package again"),
    "weights not fetched": (lambda folder: (folder / WEIGHTS).write_text("version https://git-lfs"), "copy"),
    "half of the weights": (lambda folder: change_weights(folder, with_half), "lacks"),
    "weights of NaN": (lambda folder: change_weights(folder, with_nan), "scores that are no numbers"),
    "weights of other shapes": (lambda folder: change_weights(folder, with_other_shapes), "copy the whole package"),
    "a pickle posing as weights": (lambda folder: as_pickle(folder, WEIGHTS), "copy the whole package again"),
    "a pickle beside": (lambda folder: as_pickle(folder, "pytorch_model.bin"), "lacks model.safetensors"),
    "no processor": (lambda folder: (folder / "preprocessor_config.json").unlink(), "lacks preprocessor_config.json"),
    "processor of nothing": (lambda folder: (folder / "preprocessor_config.json").write_text("{}"), "copy"),
    "deviation of 0": (
        lambda folder: change_json(folder, "preprocessor_config.json", image_std=[0, 0, 0]),
        "copy the whole package again",
    ),
    "images of no size": (
        lambda folder: change_json(folder, "preprocessor_config.json", size={"height": 0, "width": 0}),
        "copy the whole package again",
    ),
    "crop of words": (
        lambda folder: change_json(folder, "preprocessor_config.json", crop_fraction="most"),
        "copy the whole package again",
    ),
    "thresholds of a list": (lambda folder: (folder / THRESHOLDS).write_text("[0.5]"), "write it again with score.py"),
    "thresholds of nothing": (lambda folder: (folder / THRESHOLDS).write_text("null"), "write it again with score.py"),
    "thresholds nested": (lambda folder: (folder / THRESHOLDS).write_text("[" * 100_000), "is not JSON"),
    "thresholds of bytes": (lambda folder: (folder / THRESHOLDS).write_bytes(b"\xff\xfe\0"), "is not JSON"),
    "no operating point": (
        lambda folder: change_json(folder, THRESHOLDS, operating_points={}),
        "names no operating point; write it again with score.py",
    ),
    "operating points of a list": (
        lambda folder: change_json(folder, THRESHOLDS, operating_points=["youden"]),
        "operating_points is no mapping",
    ),
    "an operating point of a number": (
        lambda folder: change_json(folder, THRESHOLDS, operating_points={"youden": 0.5}, default="youden"),
        "is no mapping of findings to thresholds",
    ),
    "threshold of infinity": (
        lambda folder: change_json(folder, THRESHOLDS, operating_points={"a": {**EVEN, "Mass": 1e999}}, default="a"),
        "has inf for Mass",
    ),
    "threshold of words": (
        lambda folder: change_json(folder, THRESHOLDS, operating_points={"a": {**EVEN, "Mass": "low"}}, default="a"),
        "has 'low' for Mass",
    ),
    "fitted on a word": (lambda folder: change_json(folder, THRESHOLDS, fitted_on="NIH"), "fitted_on is no mapping"),
    "calibration of NaN": (
        lambda folder: change_json(folder, THRESHOLDS, calibration={"Mass": {"slope": float("nan"), "intercept": 0}}),
        "the calibration of Mass is no finite slope and intercept",
    ),
    "calibration without slope": (
        lambda folder: change_json(folder, THRESHOLDS, calibration={"Mass": {"intercept": 0}}),
        "the calibration of Mass",
    ),
    "calibration of no finding": (
        lambda folder: change_json(folder, THRESHOLDS, calibration={"Cold": {"slope": 1, "intercept": 0}}),
        "the calibration of Cold",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_package_is_refused_in_one_line_that_says_what_to_do(copy, damage):
    do, said = DAMAGES[damage]
    do(copy)
    with pytest.raises(PackageError) as caught:
        load_pipeline(str(copy))
    message = str(caught.value)
    assert message.startswith(f"{copy}: ") and said in message, message
    assert "again" in message or "a threshold lies in 0 to 1" in message
    assert not CONTROLS.search(message) and len(message) < 700
    assert not (copy / "pwned").exists()


def test_a_whole_package_is_not_refused(copy, drawing):
    assert len(load_pipeline(str(copy))(drawing)) == 14


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (lambda folder: (folder / THRESHOLDS).unlink(), "no thresholds.json: 0.5 is used for every finding"),
        (
            lambda folder: change_json(folder, THRESHOLDS, fitted_on={"weights_digest": "0" * 64}),
            "fitted on other weights than these",
        ),
        (
            lambda folder: change_json(folder, "preprocessor_config.json", size={"height": 96, "width": 96}),
            "images of 96 pixels, but config.json is for 64: findings may be wrong; copy both files",
        ),
    ],
)
def test_a_doubtful_package_is_warned_about_in_one_line(copy, caplog, do, said):
    do(copy)
    transformers.logging.enable_propagation()
    load_pipeline(str(copy))
    (warned,) = [record.getMessage() for record in caplog.records if said in record.getMessage()]
    assert "\n" not in warned


@pytest.mark.parametrize("damage", ["weights cut", "half of the weights", "other labels", "a pickle posing as weights"])
def test_predict_refuses_in_one_line(run_python, copy, damage):
    do, said = DAMAGES[damage]
    do(copy)
    done = run_python("predict.py", "gone.png", "--model", copy)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"predict: {copy}: ") and said in done.stderr.splitlines()[-1]
    assert not (copy / "pwned").exists()


def test_a_mistyped_folder_is_not_looked_for_on_the_hub(copy, package, monkeypatch):
    """There, anybody could give its name to a package, whose code would run."""
    monkeypatch.chdir(copy.parent)
    (copy.parent / "runs").mkdir()
    with LoopbackHub() as hub:
        hub.take_over(monkeypatch)
        hub.add("models", "runs/ward", package)
        for name in ("runs/ward", "./ward", str(copy.parent / "ward")):
            with pytest.raises(PackageError, match=f"{name}: there is no such folder; give that of a package, or org/"):
                load_pipeline(name)
        assert not hub.requests


def test_the_demo_refuses_in_one_line(run_python, copy):
    cut(copy / WEIGHTS, 0.5)
    done = run_python("app.py", CXR_MODEL=str(copy), PORT=str(free_port()))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"app: {copy}: the model cannot be loaded, copy the whole package")


def test_thresholds_of_another_model_are_warned_about_by_predict(run_python, copy, corpus_folder):
    change_json(copy, THRESHOLDS, fitted_on={"weights_digest": "0" * 64})
    done = run_python("predict.py", corpus_folder / "sound_grey.png", "--model", copy)
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "fitted on other weights" in line]
    assert "fit them again with score.py or train.py" in line


class MovingHub(LoopbackHub):
    """A Hub that keeps the commits of a repository; "main" is the last one added."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: dict[str, Repo] = {}

    def push(self, name: str, folder: Path, commit: str) -> None:
        self.commits[commit] = self.add("models", name, folder, commit)

    def repo(self, kind: str | None, name: str, revision: str | None) -> Repo | Answer:
        return self.commits.get(revision or "") or super().repo(kind, name, revision)


FIRST, SECOND = "a" * 40, "b" * 40
ASK = """
import json, sys
from loading_cxrfpn import load_pipeline
from thresholds_cxrfpn import PackageError
for model in sys.argv[2:]:
    try:
        print(json.dumps([finding["score"] for finding in load_pipeline(model)(sys.argv[1])]))
    except PackageError as error:
        print(json.dumps(str(error)))
"""


def test_a_revision_that_moved(run_python, package, tiny_config, corpus_folder, tmp_path):
    """A pinned revision gives the old scores when main has moved on; one that never was is named."""
    moved = shutil.copytree(package, tmp_path / "moved")
    torch.manual_seed(1)
    CxrFpnForImageClassification(tiny_config()).save_pretrained(tmp_path / "network")
    shutil.copy(tmp_path / "network" / WEIGHTS, moved)
    pinned, gone = f"{MODEL}@{FIRST}", f"{MODEL}@{'c' * 40}"
    with MovingHub() as hub:
        hub.push(MODEL, package, FIRST)
        hub.push(MODEL, moved, SECOND)
        done = run_python(
            "-c", ASK, corpus_folder / "sound_grey.png", package, moved, pinned, MODEL, pinned, gone,
            HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path / "cache"),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    old, new, first, main, again, refused = map(json.loads, done.stdout.splitlines())
    assert first == old and main == new and again == old and old != new
    assert refused.startswith(f"{gone}: ") and "check the name and the revision" in refused
    assert not CONTROLS.search(refused)
