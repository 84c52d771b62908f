"""A script in one process after another, for tests that start it often and kill it."""

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A script in one process after another, each the leader of a group of its own. What takes seconds to import (torch) is
# imported once, so that there is time for many of them.
STARTER = """
import importlib, json, os, sys
script = importlib.import_module(sys.argv[1])
for line in sys.stdin:
    arguments, log = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.argv = [script.__file__, *arguments]
        sys.exit(script.main())
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Starter:
    """Starts a script, one process at a time; what they say is added to `log`."""

    def __init__(self, script: str, log: Path, environment: dict[str, str]) -> None:
        self.log, self._script, self._environment = log, script, environment
        self._group: int | None = None

    def __enter__(self) -> "Starter":
        self._process = subprocess.Popen(
            [sys.executable, "-c", STARTER, self._script],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **self._environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.kill()
        self._process.communicate()

    def start(self, arguments: list[str]) -> int:
        """Gives the id of the new process, and of its group."""
        self._process.stdin.write(json.dumps([arguments, str(self.log)]).encode() + b"\n")
        self._group = int(self._process.stdout.readline())
        return self._group

    def kill(self) -> None:
        """kill -9 of all the group, if it is still at work."""
        if self._group is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)

    def wait(self, seconds: float) -> int | None:
        """The exit code of the process, minus the signal that ended it; None if it is still at work."""
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        self._group = None
        return os.waitstatus_to_exitcode(int(self._process.stdout.readline()))
