"""prepare.py as it is run: killed again and again on every kind of source, and what it prints."""

import importlib
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from cxrfpn.data.schema import SourceError
from cxrfpn.data.shards import PreparedShards, read_manifest
from tests.hubs.loopback import LoopbackHub

ROOT = Path(__file__).resolve().parents[2]
REPO = "someone/chests"
PARTS = (40, 40, 40, 40, 40, 40)


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def source_names(hub, write_prepared, tmp_path_factory) -> dict[str, str]:
    """Of each kind a small source of several parts, large enough that there is something to interrupt."""
    folder = tmp_path_factory.mktemp("sources")
    write_prepared(folder / "parquet", PARTS, size=1024)
    hub.add("datasets", REPO, folder / "parquet")
    _write_nih(folder / "nih")
    return {
        "parquet": f"parquet:{folder / 'parquet'}",
        "hub": REPO,
        "nih": f"nih:{folder / 'nih'}",
        "phantom": "phantom:600",
    }


@pytest.fixture
def start(hub, tmp_path) -> Callable[[str, Path], subprocess.Popen]:
    """Start prepare.py in a process group of its own, as a terminal would."""

    def start(source: str, folder: Path) -> subprocess.Popen:
        options = ["--source", source, "--output", str(folder), "--size", "64", "--processes", "2"]
        hub_here = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        return subprocess.Popen(
            [sys.executable, str(ROOT / "prepare.py"), *options],
            env={**os.environ, **hub_here},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "hub", "nih", "phantom"])
def test_killed_again_and_again_it_writes_every_image_once(source_names, start, tmp_path, kind):
    chance, kills = random.Random(0), 0
    while True:
        process = start(source_names[kind], tmp_path / "killed")
        before = _shards(tmp_path / "killed")
        while process.poll() is None and _shards(tmp_path / "killed") == before:
            time.sleep(0.005)
        if process.poll() is not None:
            break
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.wait()
        if _shards(tmp_path / "killed") < len(read_manifest(tmp_path / "killed")["parts"]):
            with pytest.raises(SourceError, match="run prepare.py again to continue"):
                PreparedShards(tmp_path / "killed")
        kills += 1
    assert process.returncode == 0, process.stderr.read()
    assert kills > 0 and start(source_names[kind], tmp_path / "undisturbed").wait() == 0
    assert _contents(tmp_path / "killed") == _contents(tmp_path / "undisturbed")
    ids = PreparedShards(tmp_path / "killed").image_ids.to_pylist()
    assert len(ids) == len(set(ids)) == (600 if kind == "phantom" else sum(PARTS))


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_leaves_no_process(start, tmp_path):
    process = start("phantom:2000", tmp_path / "out")
    while not _shards(tmp_path / "out"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 130
    last_line = process.stderr.read().splitlines()[-1]
    assert last_line == "prepare: stopped; run the same command again to continue"
    alive = subprocess.run(["ps", "-o", "stat=", "-g", str(process.pid)], capture_output=True, text=True).stdout
    assert all(state.startswith("Z") for state in alive.split())


@pytest.fixture
def script(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run prepare.py's main in this process: options -> exit code, standard output, standard error."""
    module = importlib.import_module("prepare")

    def run(*options: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, options)])
        code = module.main()
        return code, *capsys.readouterr()

    return run


def test_it_ends_with_where_its_output_lies(script, write_prepared, tmp_path):
    write_prepared(tmp_path / "source", (30, 30))
    source = f"parquet:{tmp_path / 'source'}"
    code, out, err = script(
        "--source", source, "--output", tmp_path / "out", "--size", 32, "--show", tmp_path / "pictures"
    )
    assert code == 0 and f"prepared: 60 images in {tmp_path / 'out'}" in out and "images/s" in err
    assert f"pictures: {tmp_path / 'pictures'}" in out and len(list((tmp_path / "pictures").glob("*.png"))) >= 5
    assert len(PreparedShards(tmp_path / "out")) == 60


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("parquet:/nowhere", "/nowhere: no such folder"),
        ("zip:x", "source 'zip:x' is none of"),
        ("phantom:0", "phantom:0"),
    ],
)
def test_a_wrong_source_gets_one_line_and_leaves_nothing(script, tmp_path, source, message):
    code, out, err = script("--source", source, "--output", tmp_path / "out")
    assert code == 2 and out == "" and err.startswith("prepare: ") and message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_unreadable_images_are_pointed_to(script, tmp_path):
    _write_nih(tmp_path / "nih", damaged=True)
    code, out, err = script("--source", f"nih:{tmp_path / 'nih'}", "--output", tmp_path / "out", "--size", 32)
    assert code == 0 and f"1 images could not be read and are listed in {tmp_path / 'out' / 'skipped.csv'}" in err
    assert "prepared: 239 images" in out


def _write_nih(folder: Path, damaged: bool = False) -> None:
    """NIH's table, lists and zip archives, of drawings of 256 pixels."""
    folder.mkdir()
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"]
    lists: dict[str, list[str]] = {"train_val_list.txt": [], "test_list.txt": []}
    number = 0
    for part, count in enumerate(PARTS):
        with zipfile.ZipFile(folder / f"images_{part:03}.zip", "w") as archive:
            for _ in range(count):
                name = f"{number:08}_000.png"
                pixels = np.random.default_rng(number).integers(0, 256, (256, 256), np.uint8)
                content = cv2.imencode(".png", pixels)[1].tobytes()
                archive.writestr(f"images/{name}", content[:500] if damaged and number == 100 else content)
                lines.append(f"{name},{'Mass|Nodule' if number % 2 else 'No Finding'},0,{number},{number % 90},F,PA")
                lists["test_list.txt" if number % 5 == 0 else "train_val_list.txt"].append(name)
                number += 1
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines))
    for name, images in lists.items():
        (folder / name).write_text("\n".join(images))


def _shards(folder: Path) -> int:
    return len(list(folder.glob("data/*.parquet")))


def _contents(folder: Path) -> dict[str, bytes]:
    assert all(pq.read_metadata(path).num_rows for path in folder.glob("data/*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("**/*") if path.is_file()}
