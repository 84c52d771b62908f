"""kill -9 at random moments of prepare.py, train.py and publish.py: what is started again ends as if undisturbed."""

import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.hardening.works import Atomic, Preparing, Publishing, Training, Work
from tests.starter import Starter

PATIENCE = 600  # seconds


@pytest.fixture
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Work]:
    if request.param is not Publishing:
        yield request.param(request.getfixturevalue("chests"), tmp_path)
        return
    run = Path(shutil.copytree(request.getfixturevalue("finished"), tmp_path / "runs" / "tiny"))
    with Atomic(tmp_path / "hub") as hub:
        yield Publishing(run, hub)


@pytest.mark.parametrize(
    ("work", "command", "kills"),
    [
        # Preparing from the Hub takes a minute and a half even when it is killed only twice.
        pytest.param(
            work, command, kills, marks=[pytest.mark.slow] * (kills > 2 or work is Preparing), id=f"{command}-{kills}"
        )
        for kills in (2, 50)
        for work, command in ((Preparing, "prepare"), (Training, "train"), (Publishing, "publish"))
    ],
    indirect=["work"],
)
def test_killed_at_random_moments_it_ends_as_if_undisturbed(work, command, kills, tmp_path):
    chance = random.Random(f"{command}{kills}")
    with Starter(command, tmp_path / "log", work.environment) as starter:
        place = work.start_over()
        start(starter, work, place)
        began = time.monotonic()
        assert starter.wait(PATIENCE) == 0, starter.log.read_text()[-3000:]
        duration, expected = time.monotonic() - began, work.result(place)
        while kills:
            place, finished = work.start_over(), False
            while not finished:
                start(starter, work, place)
                code = starter.wait(chance.uniform(0, duration) if kills else PATIENCE)
                if code is None:
                    starter.kill()
                    code = starter.wait(PATIENCE)  # 0 if it had ended in that moment
                assert code in (0, -signal.SIGKILL), starter.log.read_text()[-3000:]
                kills -= code == -signal.SIGKILL
                finished = code == 0
            assert_same(work.result(place), expected)


def start(starter: Starter, work: Work, place: Path) -> None:
    """Start the script, and wait until it is at work, or has ended already."""
    arguments, since = work.arguments(place), time.time()
    process = starter.start(arguments)
    deadline = time.monotonic() + PATIENCE
    while not work.is_at_work(place, process, since) and psutil.pid_exists(process):
        assert time.monotonic() < deadline, starter.log.read_text()[-3000:]
        time.sleep(0.002)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
