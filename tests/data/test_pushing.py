"""Pushing prepared shards to the Hub: what arrives is what lies here, and a refusal is one line."""

import base64
import json
from collections.abc import Iterator

import pytest

from cxrfpn.data.preparing import PrepareError
from cxrfpn.data.pushing import push_to_hub
from cxrfpn.data.schema import SourceError
from tests.hubs.loopback import LoopbackHub
from tests.hubs.repositories import Answer

REPO = "someone/prepared"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as loopback:
        loopback.take_over(monkeypatch)
        monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
        yield loopback


@pytest.fixture
def arrived(hub) -> dict[str, bytes]:
    """Lets the loopback Hub take commits to a private data set; path -> content of all that was committed."""
    files: dict[str, bytes] = {}

    def create(hub, request) -> Answer:
        asked = json.loads(request.body)
        if (asked["type"], asked["visibility"]) != ("dataset", "private"):
            return Answer({"error": "not what was expected"}, 400)
        return Answer({"url": f"{hub.endpoint}/datasets/{REPO}"})

    def preupload(hub, request) -> Answer:
        names = [file["path"] for file in json.loads(request.body)["files"]]
        return Answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})

    def commit(hub, request) -> Answer:
        for line in map(json.loads, request.body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return Answer({"success": True, "commitOid": "0" * 40, "commitUrl": f"{hub.endpoint}/datasets/{REPO}/commit/0"})

    hub.route("POST", "/api/repos/create", create)
    hub.route("POST", "/api/validate-yaml", lambda hub, request: Answer({"errors": [], "warnings": []}))
    hub.route("POST", f"/api/datasets/{REPO}/preupload/main", preupload)
    hub.route("POST", f"/api/datasets/{REPO}/commit/main", commit)
    return files


def test_the_shards_arrive_with_a_card(hub, arrived, write_prepared, tmp_path):
    write_prepared(tmp_path / "a", (20, 30))
    (tmp_path / "a" / "data" / "shard-00009.parquet.17.tmp").write_text("of a killed process")
    assert push_to_hub(tmp_path / "a", REPO) == f"{hub.endpoint}/datasets/{REPO}"
    shards = {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "a" / "data").glob("*.parquet")}
    assert {name: content for name, content in arrived.items() if name.endswith(".parquet")} == shards
    assert set(arrived) - set(shards) == {"README.md", "prepare.json"}
    card = arrived["README.md"].decode()
    assert "# 50 prepared chest radiographs" in card and "synthetic" not in card


def test_phantoms_are_called_synthetic(arrived, write_prepared, tmp_path):
    write_prepared(tmp_path / "a", (5,), source="phantom:5")
    push_to_hub(tmp_path / "a", REPO)
    assert b"all of them synthetic" in arrived["README.md"]


def test_a_refusal_is_one_line(hub, write_prepared, tmp_path):
    write_prepared(tmp_path / "a", (5, 5))
    hub.route("POST", "/api/repos/create", lambda hub, request: Answer({"error": "no right to write here"}, 403))
    for repo in (REPO, "not a/name/at all"):
        with pytest.raises(PrepareError, match="cannot be pushed to the Hub") as caught:
            push_to_hub(tmp_path / "a", repo)
        assert "\n" not in str(caught.value)
    next((tmp_path / "a" / "data").glob("*.parquet")).unlink()
    with pytest.raises(SourceError, match="run prepare.py again"):
        push_to_hub(tmp_path / "a", REPO)
