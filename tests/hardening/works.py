"""What is started, killed and compared: a script, the work it is asked to do in one place after another, its result."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import psutil
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.hardening.conftest import RECIPE
from tests.hubs.repositories import Answer
from tests.hubs.uploads import TOKEN, UploadHub

MODEL, SPACE = "org/cxr", "org/cxr-demo"


class Work(Protocol):
    """What a script is asked to do, in one place after another; going on is the same command as beginning."""

    environment: dict[str, str]

    def start_over(self) -> Path:
        """A place where nothing is yet."""

    def arguments(self, place: Path) -> list[str]: ...

    def is_at_work(self, place: Path, process: int, since: float) -> bool:
        """Whether a process that was started at `since` has done its imports, and works."""

    def result(self, place: Path) -> dict[str, Any]:
        """All that has come of it, but for what no two runs have in common: times of day, durations, the command."""


class Preparing:
    environment: dict[str, str] = {}

    def __init__(self, chests: Path, folder: Path) -> None:
        self._chests, self._folder, self._places = chests, folder, 0

    def start_over(self) -> Path:
        self._places += 1
        return self._folder / str(self._places) / "prepared"

    def arguments(self, place: Path) -> list[str]:
        return ["--source", f"parquet:{self._chests}", "--output", str(place), "--size", "48", "--processes", "2"]

    def is_at_work(self, place: Path, process: int, since: float) -> bool:
        """Its fork server has forked a worker."""
        try:
            leader = psutil.Process(process)
            return len(leader.children(recursive=True)) > len(leader.children())
        except psutil.NoSuchProcess:
            return False

    def result(self, place: Path) -> dict[str, Any]:
        return files(place)


class Training:
    environment: dict[str, str] = {}

    def __init__(self, chests: Path, folder: Path) -> None:
        self._folder, self._places = folder, 0
        recipe = {**RECIPE, "source": f"parquet:{chests}"}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def start_over(self) -> Path:
        self._places += 1
        return self._folder / str(self._places) / "run"

    def arguments(self, place: Path) -> list[str]:
        return [str(self._folder / "recipe.yaml"), "--output-dir", str(place), "--resume"]

    def is_at_work(self, place: Path, process: int, since: float) -> bool:
        """Return whether it has loaded its last checkpoint and said so."""
        configuration = place / "configuration.txt"
        return configuration.exists() and configuration.stat().st_mtime > since

    def result(self, place: Path) -> dict[str, Any]:
        there = {name: content for name, content in files(place).items() if not name.startswith("logs/")}
        lines = there["configuration.txt"].decode().splitlines()
        there["configuration.txt"] = [line for line in lines if not line.startswith(("command", "commit", "took"))]
        for name in [name for name in there if name.endswith("state.json")]:
            state = json.loads(there[name])
            del state["train_state"]["seconds"], state["state_sha256"]
            there[name] = state
        return {**there, "logs": self._logged(place / "logs" / "training")}

    def _logged(self, folder: Path) -> dict[str, list[tuple[int, float]]]:
        """What TensorBoard shows."""
        events = EventAccumulator(str(folder))
        events.Reload()
        return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


class Atomic(UploadHub):
    """A commit is there whole or not at all, even when the sender dies in the middle."""

    def find(self, method: str, path: str) -> tuple[Callable[..., Any], dict[str, str]] | None:
        found = super().find(method, path)
        return found and (lambda hub, request, **groups: self._whole(found[0], request, groups), found[1])

    def _whole(self, handler: Callable[..., Any], request: Any, groups: dict[str, str]) -> Answer | Path:
        if len(request.body) < int(request.headers.get("Content-Length", 0)):
            raise ConnectionResetError
        return handler(self, request, **groups)

    def is_idle(self) -> bool:
        return all(connection.fileno() < 0 for connection in self.connections)

    def forget_all(self) -> None:
        for known in (self.repos, self.private, self.commits, self.variables, self.objects):
            known.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class Publishing:
    def __init__(self, run: Path, hub: Atomic) -> None:
        self._run, self._hub = run, hub
        home = {"HF_HOME": str(run.parent / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        self.environment = {**home, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN}

    def start_over(self) -> Path:
        self._wait_for_hub()
        self._hub.forget_all()
        return self._run

    def arguments(self, place: Path) -> list[str]:
        self._wait_for_hub()
        self._hub.requests.clear()
        return [str(place), "--model-repo", MODEL, "--space-repo", SPACE]

    def is_at_work(self, place: Path, process: int, since: float) -> bool:
        return bool(self._hub.requests)

    def result(self, place: Path) -> dict[str, Any]:
        content = {kind: self._hub.content(kind, name) for kind, name in (("models", MODEL), ("spaces", SPACE))}
        pins = {name: repo.commit for (_, name), repo in self._hub.repos.items()}
        run = files(place)
        return {**content, "pins": pins, "variables": dict(self._hub.variables), "commits": [*self._hub.commits]} | run

    def _wait_for_hub(self) -> None:
        """For what a process had sent before it was killed."""
        while not self._hub.is_idle():
            time.sleep(0.01)


def files(folder: Path) -> dict[str, Any]:
    """path -> content of all that lies in a folder, hidden files too: what a kill left behind would show here."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
