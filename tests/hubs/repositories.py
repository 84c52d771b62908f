"""The repositories of the loopback Hub: folders, and the calls that read them."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from tests.hubs.loopback import Handler, LoopbackHub

KINDS = ("models", "datasets", "spaces")
COMMIT = hashlib.sha1(b"the only commit").hexdigest()


@dataclass
class Repo:
    """A folder served as a repository of one commit; branches and other commits of it are not known, "main" is."""

    kind: str
    name: str
    folder: Path
    commit: str = COMMIT

    def files(self, under: str = "") -> list[Path]:
        start = self.folder / under
        return sorted(path for path in start.rglob("*") if path.is_file()) if start.is_dir() else []

    def path(self, name: str) -> Path | None:
        """The file of this name; None where there is none, or none inside the folder."""
        path = (self.folder / name).resolve()
        return path if path.is_relative_to(self.folder.resolve()) and path.is_file() else None


@dataclass(frozen=True)
class Answer:
    """A JSON answer; None stands for an empty body."""

    content: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def entry(repo: Repo, path: Path) -> dict[str, Any]:
    """A file as the tree and paths-info calls describe it; those of over 10 MB would lie in LFS on the real Hub."""
    return {
        "type": "file",
        "oid": etag(path),
        "size": path.stat().st_size,
        "path": path.relative_to(repo.folder).as_posix(),
    }


def etag(path: Path) -> str:
    """Another one whenever the file has changed."""
    state = path.stat()
    return hashlib.sha1(f"{path}{state.st_size}{state.st_mtime_ns}".encode()).hexdigest()


def info(hub: "LoopbackHub", request: "Handler", kind: str, repo: str, revision: str | None = None) -> Answer:
    found = hub.repo(kind, repo, revision)
    if isinstance(found, Answer):
        return found
    entries = [entry(found, path) for path in found.files()]
    files = [{"rfilename": item["path"], "size": item["size"], "blobId": item["oid"]} for item in entries]
    return Answer(
        {
            "_id": "0" * 24,
            "id": found.name,
            "modelId": found.name,
            "sha": found.commit,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": files,
        }
    )


def tree(
    hub: "LoopbackHub", request: "Handler", kind: str, repo: str, revision: str, under: str | None = None
) -> Answer:
    found = hub.repo(kind, repo, revision)
    if isinstance(found, Answer):
        return found
    start = found.folder / (under or "")
    if not start.is_dir():
        return Answer({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})
    recursive = request.query.get("recursive", ["false"])[0].lower() in ("1", "true")
    paths = sorted(start.rglob("*") if recursive else start.iterdir())
    return Answer([entry(found, path) if path.is_file() else _folder(found, path) for path in paths])


def paths_info(hub: "LoopbackHub", request: "Handler", kind: str, repo: str, revision: str) -> Answer:
    found = hub.repo(kind, repo, revision)
    if isinstance(found, Answer):
        return found
    is_json = "json" in request.headers.get("Content-Type", "")
    asked = (json.loads(request.body) if is_json else parse_qs(request.body.decode()))["paths"]
    paths = [found.folder / name for name in ([asked] if isinstance(asked, str) else asked)]
    return Answer([entry(found, path) if path.is_file() else _folder(found, path) for path in paths if path.exists()])


def resolve(
    hub: "LoopbackHub", request: "Handler", repo: str, revision: str, path: str, kind: str | None = None
) -> Answer | Path:
    found = hub.repo(kind, repo, unquote(revision))
    if isinstance(found, Answer):
        return found
    request.extra = {"X-Repo-Commit": found.commit}
    file = found.path(path)
    return file or Answer(None, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found.commit})


def _folder(repo: Repo, path: Path) -> dict[str, Any]:
    name = path.relative_to(repo.folder).as_posix()
    return {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}
