"""The loopback Hub that also takes uploads: tokens, new repositories, large files, commits, a Space's variables.

    with UploadHub(tmp_path) as hub:
        hub.take_over(monkeypatch)          # with the token that it knows
        HfApi().create_repo("org/name")
        ...
        assert hub.content("models", "org/name")["config.json"] == b"..."
        assert hub.commits[-1].added == ["config.json"]

As the real one, it knows a file by git's sha1 of its blob or, a large one, by its sha256, and takes a commit whole or
not at all.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.hubs.loopback import LoopbackHub
from tests.hubs.repositories import KINDS, Answer

TOKEN = "hf_of_the_test"
LARGE = (".safetensors", ".png", ".parquet")
HUB_KINDS = {"model": "models", "dataset": "datasets", "space": "spaces"}
REFUSED = Answer({"error": "Invalid username or password."}, 401)
FORBIDDEN = Answer({"error": "You don't have the rights to write here."}, 403)


@dataclass(frozen=True)
class Commit:
    kind: str
    repo: str
    message: str
    added: list[str]
    deleted: list[str]


class UploadHub(LoopbackHub):
    """Repositories are folders below `folder`; a client with TOKEN may write, unless `read_only` is set.

    Only uploads ask for a token: private repositories, whose names `private` holds, can be read by anybody.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.read_only = folder, False
        self.private: set[tuple[str, str]] = set()
        self.commits: list[Commit] = []
        self.variables: dict[str, dict[str, str]] = {}
        self.objects: dict[str, bytes] = {}
        kind, repo = f"(?P<kind>{'|'.join(KINDS)})", r"(?P<repo>[\w.-]+/[\w.-]+)"
        self.route("GET", "/api/whoami-v2", _whoami)
        self.route("GET", rf"/api/{kind}/{repo}", _info)
        self.route("POST", "/api/repos/create", _create)
        self.route("POST", "/api/validate-yaml", lambda hub, request: Answer({"errors": [], "warnings": []}))
        self.route("POST", rf"/api/{kind}/{repo}/preupload/main", _preupload)
        self.route("POST", rf"/(?:datasets/|spaces/)?{repo}\.git/info/lfs/objects/batch", _batch)
        self.route("PUT", r"/large/(?P<oid>[0-9a-f]{64})", _put)
        self.route("POST", rf"/api/{kind}/{repo}/commit/main", _commit)
        for method in ("GET", "POST"):
            self.route(method, rf"/api/spaces/{repo}/variables", _variables)

    def take_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().take_over(monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # Large files go by the older protocol: the newer one speaks to a storage server besides the Hub.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def content(self, kind: str, repo: str) -> dict[str, bytes]:
        """path -> content of all that is in a repository."""
        there = self.repos[kind, repo]
        return {path.relative_to(there.folder).as_posix(): path.read_bytes() for path in there.files()}

    def may_not_write(self, request: Any) -> Answer | None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return REFUSED
        return FORBIDDEN if self.read_only and request.command != "GET" else None


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _oid(name: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if name.endswith(LARGE) else git_oid(content)


def _whoami(hub: UploadHub, request: Any) -> Answer:
    return hub.may_not_write(request) or Answer({"name": "somebody", "type": "user"})


def _info(hub: UploadHub, request: Any, kind: str, repo: str) -> Answer:
    found = hub.repo(kind, repo, None)
    if isinstance(found, Answer):
        return found
    siblings = []
    for name, content in hub.content(kind, repo).items():
        oid, size = git_oid(content), len(content)
        large = {"sha256": _oid(name, content), "size": size, "pointerSize": 130} if name.endswith(LARGE) else None
        siblings.append({"rfilename": name, "size": size, "blobId": oid, "lfs": large})
    private = (kind, repo) in hub.private
    return Answer({"_id": "0", "id": repo, "sha": found.commit, "private": private, "tags": [], "siblings": siblings})


def _create(hub: UploadHub, request: Any) -> Answer:
    asked = json.loads(request.body)
    kind, name = HUB_KINDS[asked.get("type", "model")], f"{asked['organization']}/{asked['name']}"
    if refusal := hub.may_not_write(request):
        return refusal
    if (kind, name) in hub.repos:
        return Answer({"error": "You already created this repository"}, 409)
    if kind == "spaces" and asked["sdk"] not in ("gradio", "static"):
        return Answer({"error": "this test knows gradio and static only"}, 400)
    (folder := hub.folder / kind / name).mkdir(parents=True)
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    hub.add(kind, name, folder, hashlib.sha1(f"{kind}/{name}".encode()).hexdigest())
    if asked.get("visibility") == "private":
        hub.private.add((kind, name))
    return Answer({"url": f"{hub.endpoint}/{'' if kind == 'models' else f'{kind}/'}{name}"})


def _preupload(hub: UploadHub, request: Any, kind: str, repo: str) -> Answer:
    if refusal := hub.may_not_write(request):
        return refusal
    there = hub.content(kind, repo)
    return Answer(
        {
            "files": [
                {
                    "path": (name := file["path"]),
                    "uploadMode": "lfs" if name.endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": _oid(name, there[name]) if name in there else None,
                }
                for file in json.loads(request.body)["files"]
            ]
        }
    )


def _batch(hub: UploadHub, request: Any, repo: str) -> Answer:
    """Where to put each object; nowhere if it is here already."""
    objects = []
    for each in json.loads(request.body)["objects"]:
        upload = {"actions": {"upload": {"href": f"{hub.endpoint}/large/{each['oid']}"}}}
        objects.append({**each, **({} if each["oid"] in hub.objects else upload)})
    return hub.may_not_write(request) or Answer({"transfer": "basic", "objects": objects})


def _put(hub: UploadHub, request: Any, oid: str) -> Answer:
    if hashlib.sha256(request.body).hexdigest() != oid:
        return Answer({"error": "not what was announced"}, 400)
    hub.objects[oid] = request.body
    return Answer()


def _commit(hub: UploadHub, request: Any, kind: str, repo: str) -> Answer:
    if refusal := hub.may_not_write(request):
        return refusal
    found, added, deleted, header = hub.repos[kind, repo], {}, [], {}
    for line in map(json.loads, request.body.splitlines()):
        value = line["value"]
        if line["key"] == "header":
            header = value
        elif line["key"] == "file":
            added[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile" and value["oid"] in hub.objects:
            added[value["path"]] = hub.objects[value["oid"]]
        elif line["key"] == "deletedFile":
            deleted.append(value["path"])
        else:
            return Answer({"error": f"cannot be committed: {value}"}, 400)
    if header.get("parentCommit", found.commit) != found.commit:
        return Answer({"error": "the branch has moved"}, 412)
    for name, content in added.items():
        (path := found.folder / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name in deleted:
        (found.folder / name).unlink()
    hub.commits.append(Commit(kind, repo, header["summary"], sorted(added), sorted(deleted)))
    found.commit = hashlib.sha1(f"{found.commit}{len(hub.commits)}".encode()).hexdigest()
    url = f"{hub.endpoint}/{repo}/commit/{found.commit}"
    return Answer({"success": True, "commitOid": found.commit, "commitUrl": url})


def _variables(hub: UploadHub, request: Any, repo: str) -> Answer:
    if refusal := hub.may_not_write(request):
        return refusal
    known = hub.variables.setdefault(repo, {})
    if request.command == "POST":
        asked = json.loads(request.body)
        known[asked["key"]] = asked["value"]
    return Answer({key: {"value": value} for key, value in known.items()})
