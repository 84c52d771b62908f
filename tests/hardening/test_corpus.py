"""The corpus of files through the image processor and predict.py: fourteen findings, or one line that says why not."""

import json
import math
import os
import re
import selectors
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from configuration_cxrfpn import FINDINGS
from tests.hardening.corpus import make_corpus

ROOT = Path(__file__).resolve().parents[2]
# Of the wall, for one file; an idle core needs a hundredth of it, and a hang would outlast anything.
MOST_SECONDS = 60
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def test_the_corpus_is_large_and_the_same_every_time(corpus):
    assert len(corpus) >= 300
    assert make_corpus() == corpus
    assert sum(file.is_good is True for file in corpus.values()) > 60
    assert sum(file.is_good is False for file in corpus.values()) > 60


class Reading:
    """A process that reads files; it is killed when one takes too long."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.hardening.read_all"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1,
        )  # fmt: skip
        assert json.loads(self.process.stdout.readline()) == "ready"
        self.waiting = selectors.DefaultSelector()
        self.waiting.register(self.process.stdout, selectors.EVENT_READ)

    def ask(self, path: Path) -> dict:
        self.process.stdin.write(json.dumps(str(path)) + "\n")
        if not self.waiting.select(MOST_SECONDS):
            return {"broke": f"no answer after {MOST_SECONDS} seconds"}
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"broke": f"the process ended with {self.process.wait()}"}

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.waiting.close()


@pytest.fixture
def reading() -> Iterator[Reading]:
    reading = Reading()
    yield reading
    reading.stop()


def test_every_file_is_read_or_refused_in_one_line_and_in_time(reading, corpus, corpus_folder):
    problems = {}
    for name, file in corpus.items():
        answer = reading.ask(corpus_folder / name)
        if "broke" in answer:
            problems[name] = answer
            reading.stop()
            reading.__init__()
        elif "refused" in answer:
            said = answer["refused"]
            in_order = said.startswith(f"{corpus_folder / name}: ") and not CONTROLS.search(said) and len(said) < 600
            if not in_order or file.is_good:
                problems[name] = answer
        elif answer != {"shape": [1, 3, 64, 64], "is_finite": True} or file.is_good is False:
            problems[name] = answer
    assert not problems


@pytest.fixture(scope="module")
def ward(corpus_folder: Path, tmp_path_factory) -> Path:
    """The corpus, and files whose names or sizes are the trouble."""
    ward = tmp_path_factory.mktemp("ward") / "corpus"
    shutil.copytree(corpus_folder, ward)
    sound = (ward / "sound_grey.png").read_bytes()
    (ward / "two\nlines.png").write_bytes(b"no picture")
    (ward / "red \x1b[31m.png").write_bytes(b"no picture")
    (ward / "a folder.png").mkdir()
    (ward / "nowhere.png").symlink_to("gone")
    Path(os.fsdecode(os.fsencode(ward) + b"/caf\xe9.png")).write_bytes(sound)  # a name that is no UTF-8
    with (ward / "sparse.png").open("wb") as file:
        file.truncate(2**40)
    return ward


def test_predict_answers_for_every_file_and_none_stops_the_others(run_python, package, corpus, ward, tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)  # that nobody writes to
    done = run_python("predict.py", ward, pipe, "/dev/zero", "x" * 300, "--model", package, "--format", "json")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    records = {Path(record["image"]).name: record for record in map(json.loads, done.stdout.splitlines())}
    others = {"two\nlines.png", "red \x1b[31m.png", "sparse.png", "pipe.png", "zero", "x" * 300}
    unicode = {name for name in records if name.startswith("caf")}
    assert set(records) == set(corpus) | others | unicode and len(unicode) == 1
    errors = [record["error"] for record in records.values() if "error" in record]
    for name, record in records.items():
        if "error" in record:
            assert name in others or corpus[name].is_good is not True, record
            assert not CONTROLS.search(record["error"])
        else:
            assert name in unicode or (name not in others and corpus[name].is_good is not False), name
            assert sorted(each["label"] for each in record["findings"]) == sorted(FINDINGS)
            for finding in record["findings"]:
                assert all(math.isfinite(finding[key]) for key in ("score", "probability", "threshold"))
    listed = done.stderr[done.stderr.index(f"predict: {len(errors)} of {len(records)} could not be predicted:") :]
    assert sorted(line.strip() for line in listed.splitlines()[1:]) == sorted(errors)


@pytest.mark.parametrize("form", ["table", "csv", "parquet"])
def test_a_name_that_is_no_unicode_is_written_in_every_form(run_python, package, ward, tmp_path, form):
    output = tmp_path / "findings"
    name = next(path for path in ward.iterdir() if path.name.startswith("caf"))
    done = run_python("predict.py", name, "--model", package, "--format", form, "--output", output)
    assert (done.returncode, output.is_file()) == (0, True), done.stderr[-2000:]


def test_a_map_of_the_longest_path_has_a_name(run_python, package, drawing, tmp_path):
    """Its folders and its name, joined into one, would be longer than a name can be."""
    folder = tmp_path.joinpath(*["Aufnahme" * 12] * 3)
    folder.mkdir(parents=True)
    for name in ("é" * 120 + "1.png", "é" * 120 + "2.png"):
        Image.fromarray(drawing).save(folder / name)
    low = shutil.copytree(package, tmp_path / "low")
    (low / "thresholds.json").write_text(json.dumps(dict.fromkeys(FINDINGS, 0.0)))
    done = run_python("predict.py", folder, "--model", low, "--maps", tmp_path / "maps")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "maps").iterdir())) == 14 * 2


def test_maps_of_strips_are_strips(run_python, package, corpus_folder, tmp_path):
    """A picture one pixel wide has maps of its own size, not an error."""
    low = tmp_path / "package"
    shutil.copytree(package, low)
    (low / "thresholds.json").write_text(json.dumps(dict.fromkeys(FINDINGS, 0.0)))
    strips = [corpus_folder / f"shape_{size}.png" for size in ("1x2", "2x1", "1x20000", "20000x1", "3x5")]
    done = run_python("predict.py", *strips, "--model", low, "--maps", tmp_path / "maps")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "maps").iterdir())) == 14 * len(strips)
