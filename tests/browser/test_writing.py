"""The folder of the page: what lies in it, what it takes the place of, and what its network keeps."""

import hashlib
import json
import re

import pytest

from browser import writing
from browser.publishing import publish_page
from browser.writing import POLICY, space_files, write_folder
from cxrfpn.publishing.contents import PublishError
from tests.hubs.uploads import UploadHub

SPACE = "org/reads-films"


def test_a_page_takes_the_place_of_a_page_and_of_nothing_else(tmp_path):
    write_folder({"sw.js": b"1", "chunks/old.js": b"1"}, tmp_path / "page")
    write_folder({"sw.js": b"2", "chunks/new.js": b"2"}, tmp_path / "page")
    assert sorted(path.name for path in (tmp_path / "page").rglob("*.js")) == ["new.js", "sw.js"]
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "scan.dcm").write_bytes(b"x")
    others = "holds other files"
    for folder, reason in (("films", others), ("films/scan.dcm", others), ("a/b", "no folder")):
        with pytest.raises(PublishError, match=reason):
            write_folder({"sw.js": b"1"}, tmp_path / folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films", "page"]


def test_without_the_scripts_it_says_how_they_are_built(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "BUILT", tmp_path)
    with pytest.raises(PublishError, match="make static builds them, which needs Node"):
        writing.require_scripts()


def test_the_service_worker_keeps_every_file_by_its_digest_but_the_second_network():
    files = {"index.html": b"page", "model.onnx": b"half", "model-int8.onnx": b"int8"}
    text = writing._service_worker(files).decode()
    kept = json.loads(re.search(r"const FILES = (.*);", text)[1])
    assert kept == {name: hashlib.sha256(files[name]).hexdigest() for name in ("index.html", "model.onnx")}
    assert text != writing._service_worker({**files, "index.html": b"another page"}).decode()


def test_the_policy_names_no_other_host():
    assert "default-src 'none'" in POLICY and "http" not in POLICY and "unsafe-inline" not in POLICY
    assert "'unsafe-eval'" not in POLICY.replace("'wasm-unsafe-eval'", "")


def test_the_space_is_static():
    card = space_files({"index.html": b""}, SPACE)["README.md"].decode()
    assert "sdk: static" in card and "title: reads-films" in card and "Not for clinical use" in card


def test_a_static_space_is_made_and_brought_up_to_date(tmp_path, monkeypatch):
    files = {"index.html": b"page", "sw.js": b"1", "chunks/old-A1.js": b"1"}
    with UploadHub(tmp_path / "hub") as hub:
        hub.take_over(monkeypatch)
        assert "index.html" in publish_page(files, SPACE, private=False, dry_run=True) and not hub.commits
        publish_page(files, SPACE, private=False, dry_run=False)
        changed = {"index.html": b"page", "sw.js": b"2", "chunks/new-B2.js": b"2"}
        listing = publish_page(changed, SPACE, private=False, dry_run=False)
        assert "deleted" in listing and "chunks/old-A1.js" in listing and len(hub.commits) == 2
        with pytest.raises(PublishError, match="no name of a Space"):
            publish_page(files, "page", private=False, dry_run=False)
