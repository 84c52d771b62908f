"""What publish.py does not publish, or not at once: a refusal is one line, and a cut upload continues."""

import json
import shutil
import socket
from pathlib import Path

import pytest

from tests.hubs.loopback import Fault
from tests.publishing.conftest import MODEL, SPACE, refused

OTHER = {"weights_digest": "0" * 64}


def test_without_a_token_that_may_write_nothing_happens(hub, publish, monkeypatch, tmp_path):
    hub.read_only = True
    assert f"{MODEL}: the token has no right to write there" in refused(publish())
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    assert "the Hub: the token is refused; log in" in refused(publish())
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "no token for the Hub; log in with `hf auth login`" in refused(publish())
    assert not hub.repos


@pytest.mark.parametrize("name", ["spaces/org/demo", "demo", "https://huggingface.co/org/demo"])
def test_a_name_that_is_none(publish, name):
    assert f"{name}: is no name of a repository; it is org/name" in refused(publish(space=name))


def test_a_repository_of_another_kind(hub, publish):
    assert publish()[0] == 0
    line = refused(publish(model=SPACE, space=MODEL))
    assert f"{SPACE}: is a Space on the Hub and not a model" in line
    assert len(hub.commits) == 2 and ("models", SPACE) not in hub.repos


def test_an_upload_that_is_cut_goes_on(hub, publish, run, monkeypatch):
    """Cut in the weights, then between both repositories, then as the Space's model is set."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    routes = list(hub._routes)

    def cut(method: str, pattern: str) -> str:
        def hang_up(hub, request, **groups) -> None:
            request.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError

        hub.route(method, pattern, hang_up)
        line = refused(publish())
        hub._routes[:] = routes
        return line

    assert "the connection to the Hub broke" in cut("PUT", "/large/(?P<oid>.*)")
    assert set(hub.content("models", MODEL)) == {".gitattributes"}  # nothing of it shows
    assert "run the same command again" in cut("POST", "/api/models/.*/commit/main")
    assert set(hub.content("models", MODEL)) == {".gitattributes"} and not hub.commits
    hub.requests.clear()
    cut("POST", "/api/spaces/.*/variables")
    assert not [request for request in hub.requests if request.method == "PUT"]  # large files are there already
    assert [commit.kind for commit in hub.commits] == ["models"]
    hub.faults.append(Fault("/commit/main", method="POST", status=500))
    assert SPACE in refused(publish())
    assert publish()[0] == 0
    assert [commit.kind for commit in hub.commits] == ["models", "spaces"]
    assert hub.content("models", MODEL)["model.safetensors"] == (run / "model.safetensors").read_bytes()


def test_what_somebody_else_did_meanwhile_is_not_overwritten(hub, publish, run):
    assert publish()[0] == 0
    (run / "configuration.txt").write_text("took 3 minutes\n")
    preupload, groups = hub.find("POST", f"/api/models/{MODEL}/preupload/main")

    def after_another_commit(hub, request):
        hub.repos["models", MODEL].commit = "f" * 40
        return preupload(hub, request, **groups)

    hub.route("POST", f"/api/models/{MODEL}/preupload/main", after_another_commit)
    assert f"{MODEL}: somebody else has changed it meanwhile" in refused(publish())
    assert len(hub.commits) == 2


def _lacks(run: Path, name: str) -> None:
    (run / name).unlink()


def _change(run: Path, name: str, **values: object) -> None:
    content = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps({**content, **values}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: shutil.rmtree(run), "is no finished run, for want of config.json"),
        (lambda run: _lacks(run, "thresholds.json"), "for want of thresholds.json;"),
        (lambda run: _lacks(run, "metrics.json"), "for want of metrics.json;"),
        (lambda run: _lacks(run, "radiograph_cxrfpn.py"), "for want of radiograph_cxrfpn.py;"),
        (lambda run: (run / "thresholds.json").write_text("{"), "thresholds.json: is not JSON"),
        (lambda run: _change(run, "thresholds.json", default="ours"), "the default operating point 'ours'"),
        (
            lambda run: _change(run, "thresholds.json", fitted_on=OTHER),
            "fitted with other weights",
        ),
        (
            lambda run: _change(run, "metrics.json", **OTHER),
            "measured with other weights",
        ),
        (lambda run: _change(run, "metrics.json", is_model=False), "of a table of predictions"),
        (lambda run: (run / "metrics.json").write_text("{}"), "metrics.json: lacks 'is_model'"),
    ],
)
def test_a_folder_that_is_no_package(hub, publish, run, harm, message):
    harm(run)
    line = refused(publish())
    assert message in line and str(run) in line
    assert not hub.requests  # found out before the Hub is asked


def test_a_project_without_its_space(hub, publish, tree):
    (tree / "space" / "README.md").unlink()
    assert "README.md: missing, and the Space needs it" in refused(publish())
