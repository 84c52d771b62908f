"""What the tests of publish.py share: a finished run, a copy of what makes the Space, and a Hub of our own."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import publish as script
from configuration_cxrfpn import FINDINGS
from cxrfpn.data.labels import label_matrix
from cxrfpn.data.sources import open_source
from cxrfpn.evaluation.reporting import ScoreRequest, score_predictions
from cxrfpn.evaluation.scoring import Settings
from tests.hubs.uploads import UploadHub

ROOT = Path(__file__).resolve().parents[2]
MODEL, SPACE = "org/cxr-densenet-fpn", "org/cxr-densenet-fpn-demo"
# What of a run goes to the Hub besides the package and its figures, and what never leaves the machine.
RECORDS = {"configuration.txt", "validation_metrics.csv", "test_metrics.csv"}
RECORDS |= {f"plots/{name}.png" for name in ("auroc", "roc", "training_loss")}
KEPT = {"plots/examples.png", "predictions.parquet", "checkpoints/step-1/optimizer.pt", "logs/training/events"}


@pytest.fixture(scope="session")
def finished(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the tiny network as train.py leaves one: figures and pictures, and what never goes anywhere."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    shutil.copytree(package, run)
    source = open_source("phantom:120")
    metadata = source.metadata()
    scores = np.random.default_rng(0).random(label_matrix(metadata).shape)
    table = pd.DataFrame(scores, columns=list(FINDINGS)).assign(image=metadata["image_id"])
    table.to_csv(run.parent / "scores.csv", index=False)
    report = score_predictions(
        [run.parent / "scores.csv"], ScoreRequest(source, "all", settings=Settings(resamples=10))
    )
    report.figures.update(system="tiny", is_model=True)
    figures = json.dumps(report.figures, default=lambda number: number.item())
    (run / "metrics.json").write_text(json.dumps(json.loads(figures, parse_constant=lambda name: None)))
    (run / "recipe.yaml").write_text("seed: 7\n")
    for name in RECORDS | KEPT:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(name.encode())
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "tiny"))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what of this project makes the Space, for publish.py to read."""
    tree = tmp_path / "tree"
    litter = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "demo", tree / "demo", ignore=litter)
    shutil.copytree(ROOT / "space", tree / "space")
    for path in (ROOT / "app.py", ROOT / "requirements.txt", *ROOT.glob("*_cxrfpn.py")):
        shutil.copy(path, tree)
    monkeypatch.setattr(script, "ROOT", tree)
    return tree


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    with UploadHub(tmp_path / "hub") as hub:
        hub.take_over(monkeypatch)
        yield hub


@pytest.fixture
def publish(run, tree, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run publish.py in this process: its exit code, what it printed and its complaint."""

    def run_it(*options: str, folder: Path = run, model: str = MODEL, space: str = SPACE) -> tuple[int, str, str]:
        monkeypatch.setattr(
            "sys.argv", ["publish.py", str(folder), "--model-repo", model, "--space-repo", space, *options]
        )
        return script.main(), *capsys.readouterr()

    return run_it


def refused(result: tuple[int, str, str]) -> str:
    """The one line that was said by a command that failed."""
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("publish: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err, result
    return lines[0]
