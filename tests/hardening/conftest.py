"""What the hardening tests share: the corpus in a folder, drawn chests, and the scripts with what they are asked."""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.labels import label_matrix
from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.shards import MANIFEST, SHARD_FOLDER, shard_paths, write_shard
from loading_cxrfpn import load_pipeline
from tests.hardening.corpus import File, make_corpus
from tests.publishing.conftest import finished  # noqa: F401 - a run folder
from tests.training.conftest import NETWORK

PARTS, IMAGES_A_PART = 15, 10
IMAGES = PARTS * IMAGES_A_PART
# Seven steps and four checkpoints an epoch.
RECIPE = {
    "cohort": {"protocol": "patients", "validation": 0.15, "test": 0.15},
    "cycles": [{"epochs": 4, "image_size": 64}],
    "network": NETWORK,
    "batch_size": 16,
    "weight_average": 0.9,
    "patient_dropout": 0.2,
    "precision": "fp32",
    "checkpoint_steps": 2,
}


@pytest.fixture(scope="session")
def corpus() -> dict[str, File]:
    return make_corpus()


@pytest.fixture(scope="session")
def corpus_folder(corpus: dict[str, File], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file of the corpus, in one folder; read only."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, file in corpus.items():
        (folder / name).write_bytes(file.data)
    return folder


@pytest.fixture(scope="session")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 drawn chests as prepare.py would leave them, in 15 parts."""
    folder = tmp_path_factory.mktemp("chests")
    (folder / SHARD_FOLDER).mkdir()
    source = PhantomSource(PARTS * IMAGES_A_PART, side=64)
    rows = [row for part in source.parts() for row in source.rows(part)]
    for number, path in enumerate(shard_paths(folder, PARTS)):
        part = rows[number * IMAGES_A_PART : (number + 1) * IMAGES_A_PART]
        write_shard(path, [(row, 64) for row in part], {})
    parts = [str(number) for number in range(PARTS)]
    (folder / MANIFEST).write_text(json.dumps({"source": source.name, "size": 64, "seed": 0, "parts": parts}))
    return folder


@pytest.fixture(scope="session")
def recipe(chests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    values = {**RECIPE, "source": f"parquet:{chests}", "cycles": [{"epochs": 1, "image_size": 64}]}
    path.write_text(yaml.safe_dump({**values, "batch_size": 32}))
    return path


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory, drawing: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("films")
    Image.fromarray(drawing).save(folder / "film.png")
    return folder


@pytest.fixture(scope="session")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's scores of the chests."""
    file = tmp_path_factory.mktemp("scores") / "scores.csv"
    metadata = PhantomSource(IMAGES).metadata()
    values = np.random.default_rng(0).random(label_matrix(metadata).shape)
    pd.DataFrame(values, columns=list(FINDINGS)).assign(image_id=metadata["image_id"]).to_csv(file, index=False)
    return file


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    """Run a script's main in this process: its name and arguments -> exit code and standard error."""

    def run(name: str, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, arguments)])
        code = importlib.import_module(name).main()
        return code, capsys.readouterr().err

    return run


def refusal(name: str, result: tuple[int, str]) -> str:
    """The one line of a command that failed as it should."""
    code, err = result
    lines = [line for line in err.splitlines() if line.startswith(f"{name}: ")]
    assert code == 2 and len(lines) == 1 and not re.search("^Traceback", err, re.MULTILINE), result
    return lines[0]


@pytest.fixture
def commands(chests, recipe, films, scores, package) -> Callable[[str, Path], list[object]]:
    """A script, and where it is to write -> its arguments."""
    load_pipeline(str(package))  # which copies the package's modules to where transformers imports them from
    predicting = ["predict", "--model", package]
    asked = {
        "prepare": ["prepare", "--source", f"parquet:{chests}", "--size", 48, "--processes", 1, "--output"],
        "train": ["train", recipe, "--resume", "--output-dir"],
        "predict": [*predicting, films, "--format", "csv", "--output"],
        "maps": [*predicting, films, "--operating-point", "youden", "--maps"],
        "archive": [*predicting, "--source", f"parquet:{chests}", "--output"],
        "score": ["score", "--predictions", scores, "--source", f"parquet:{chests}", "--split", "all",
                  "--resamples", 10, "--output-dir"],
    }  # fmt: skip
    return lambda name, place: [*asked[name], place]
