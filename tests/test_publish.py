"""publish.py on a Hub of our own: what arrives works, what is there is not sent again, a refusal is one line."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import pipeline

import publish as script
from configuration_cxrfpn import FINDINGS
from cxrfpn.data.labels import label_matrix
from cxrfpn.data.sources import open_source
from cxrfpn.evaluation.reporting import Asked, score_predictions
from cxrfpn.evaluation.scoring import Settings
from tests.loopback_hub import Fault
from tests.loopback_uploads import Commit, UploadHub

ROOT = Path(__file__).resolve().parents[1]
MODEL, SPACE = "org/cxr-densenet-fpn", "org/cxr-densenet-fpn-demo"
# What of a run goes to the Hub besides the package and its figures, and what never leaves the machine.
RECORDS = {"configuration.txt", "validation_metrics.csv", "test_metrics.csv"}
RECORDS |= {f"plots/{name}.png" for name in ("auroc", "roc", "training_loss")}
KEPT = {"plots/examples.png", "predictions.parquet", "checkpoints/step-1/optimizer.pt", "logs/training/events"}
OTHER = {"weights_sha256": "0" * 64}


@pytest.fixture(scope="module")
def finished(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the tiny network as train.py leaves one: figures and pictures, and what never goes anywhere."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    shutil.copytree(package, run)
    source = open_source("phantom:120")
    metadata = source.metadata()
    scores = np.random.default_rng(0).random(label_matrix(metadata).shape)
    table = pd.DataFrame(scores, columns=list(FINDINGS)).assign(image=metadata["image_id"])
    table.to_csv(run.parent / "scores.csv", index=False)
    report = score_predictions([run.parent / "scores.csv"], Asked(source, "all", settings=Settings(resamples=10)))
    report.figures.update(system="tiny", is_model=True)
    figures = json.dumps(report.figures, default=lambda number: number.item())
    (run / "metrics.json").write_text(json.dumps(json.loads(figures, parse_constant=lambda name: None)))
    (run / "recipe.yaml").write_text("seed: 7\n")
    for name in RECORDS | KEPT:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(name.encode())
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "tiny"))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what of this project makes the Space, for publish.py to read."""
    tree = tmp_path / "tree"
    litter = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "demo", tree / "demo", ignore=litter)
    shutil.copytree(ROOT / "space", tree / "space")
    for path in (ROOT / "app.py", ROOT / "requirements.txt", *ROOT.glob("*_cxrfpn.py")):
        shutil.copy(path, tree)
    monkeypatch.setattr(script, "ROOT", tree)
    return tree


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    with UploadHub(tmp_path / "hub") as hub:
        hub.take_over(monkeypatch)
        yield hub


@pytest.fixture
def publish(run, tree, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run publish.py in this process: its exit code, what it printed and its complaint."""

    def run_it(*options: str, folder: Path = run, model: str = MODEL, space: str = SPACE) -> tuple[int, str, str]:
        monkeypatch.setattr(
            "sys.argv", ["publish.py", str(folder), "--model-repo", model, "--space-repo", space, *options]
        )
        return script.main(), *capsys.readouterr()

    return run_it


def refused(told: tuple[int, str, str]) -> str:
    """The one line that was said by a command that failed."""
    code, _, err = told
    lines = [line for line in err.splitlines() if line.startswith("publish: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err, told
    return lines[0]


def test_each_repository_gets_what_belongs_to_it(hub, publish, run, tree):
    code, out, err = publish()
    assert code == 0, err
    model, space = hub.content("models", MODEL), hub.content("spaces", SPACE)
    there = {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {".gitattributes", "README.md"} <= set(model) and {"model.safetensors", "pipeline_cxrfpn.py"} <= set(there)
    assert {name: model[name] for name in set(model) - {".gitattributes", "README.md"}} == {
        name: there[name] for name in set(there) - KEPT
    }
    demo = {path.relative_to(tree).as_posix() for path in tree.glob("demo/**/*") if path.is_file()}
    modules = {path.name for path in ROOT.glob("*_cxrfpn.py")}
    assert set(space) - {".gitattributes"} == demo | modules | {"app.py", "README.md", "requirements.txt"}
    assert space["README.md"] == (tree / "space" / "README.md").read_bytes()
    pin = f"{MODEL}@{hub.repos['models', MODEL].commit}"
    assert hub.variables[SPACE] == {"CXR_MODEL": pin} and pin in out
    assert [(commit.kind, commit.repo) for commit in hub.commits] == [("models", MODEL), ("spaces", SPACE)]
    assert not hub.private


def test_the_card_is_of_the_hub(hub, publish):
    """Its lines of Python load the model from there, and it shows no picture that is not."""
    assert publish()[0] == 0
    card = ModelCard(hub.content("models", MODEL)["README.md"].decode())
    assert f'model="{MODEL}"' in card.text and "seed: 7" in card.text
    assert "plots/auroc.png" in card.text and "examples.png" not in card.text
    assert card.data.library_name == "transformers" and card.data.model_name == MODEL


def test_only_what_has_changed_goes(hub, publish, run, tree):
    assert publish()[0] == 0
    first = hub.repos["models", MODEL].commit
    hub.requests.clear()
    code, out, _ = publish()
    assert code == 0 and f"model {MODEL}: nothing has changed since {first}" in out
    assert len(hub.commits) == 2 and all(request.method == "GET" for request in hub.requests)

    (hub.repos["models", MODEL].folder / "somebody.txt").write_text("not of ours")
    (run / "configuration.txt").write_text("took 3 minutes\n")
    (run / "plots" / "training_loss.png").unlink()
    (tree / "demo" / "page.css").write_text("body {}")
    (tree / "demo" / "calls.md").unlink()
    assert publish()[0] == 0
    second = hub.repos["models", MODEL].commit
    assert hub.commits[2:] == [
        Commit("models", MODEL, "Publish tiny", ["configuration.txt"], ["plots/training_loss.png"]),
        Commit("spaces", SPACE, f"Show {MODEL}@{second}", ["demo/page.css"], ["demo/calls.md"]),
    ]
    assert hub.variables[SPACE] == {"CXR_MODEL": f"{MODEL}@{second}"} and second != first


def test_a_dry_run_tells_and_does_nothing(hub, publish, run):
    code, out, err = publish("--dry-run")
    assert code == 0, err
    assert not hub.repos and not hub.commits
    lines = [line.split() for line in out.splitlines()]
    size = (run / "config.json").stat().st_size
    assert ["new", f"{size / 1000:.2f}kB", "config.json"] in lines and "app.py" in [line[-1] for line in lines]
    assert f"CXR_MODEL = {MODEL}@its next commit" in out
    assert publish()[0] == 0
    (run / "config.json").write_text((run / "config.json").read_text() + "\n")
    _, out, _ = publish("--dry-run")
    assert "note:" not in out
    differing = [line.split() for line in out.splitlines() if line.startswith(("  new", "  changed", "  deleted"))]
    assert differing == [["changed", f"{(size + 1) / 1000:.2f}kB", "config.json"]] and len(hub.commits) == 2


def test_modules_older_than_the_demo_are_told_of(hub, publish, run):
    (run / "modeling_cxrfpn.py").write_text("# as it was\n")
    _, out, _ = publish("--dry-run")
    assert "note: the run's modeling_cxrfpn.py differ from this project's" in out


def test_private_means_both(hub, publish):
    code, out, _ = publish("--private")
    assert code == 0 and hub.private == {("models", MODEL), ("spaces", SPACE)}
    assert "give the Space a secret HF_TOKEN" in out
    hub.private.clear()
    assert f"{MODEL}: is public on the Hub" in refused(publish("--private"))


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
    """Cut in the weights, then between both repositories, then as the Space is told of the model."""
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
    ("harm", "told"),
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
            lambda run: _change(run, "metrics.json", fitted_on=OTHER),
            "measured with other weights",
        ),
        (lambda run: _change(run, "metrics.json", is_model=False), "of a table of predictions"),
        (lambda run: (run / "metrics.json").write_text("{}"), "metrics.json: lacks 'fitted_on'"),
    ],
)
def test_a_folder_that_is_no_package(hub, publish, run, harm, told):
    harm(run)
    line = refused(publish())
    assert told in line and str(run) in line
    assert not hub.requests  # found out before the Hub is asked


def test_a_project_without_its_space(hub, publish, tree):
    (tree / "space" / "README.md").unlink()
    assert "README.md: missing, and the Space needs it" in refused(publish())


def test_the_space_installs_what_the_project_says():
    """Versions stand in pyproject.toml; what repeats them agrees."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {*project["dependencies"], *extras["dicom"], *extras["demo"]}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert {line for line in lines if not line.startswith("#")} <= known


FRESH = """
import json, sys
import numpy as np, torch
from transformers import AutoModel, pipeline
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
model, image, pixels = sys.argv[1:]
network = AutoModel.from_pretrained(model, trust_remote_code=True).eval()
with torch.no_grad():
    logits = network(torch.from_numpy(np.load(pixels))).logits
findings = pipeline("chest-xray-findings", model=model, trust_remote_code=True)({"image": image, "age": 63})
print(json.dumps({"logits": logits.tolist(), "findings": findings}))
"""


def test_what_was_published_is_the_model(hub, publish, run, run_python, drawing, tmp_path):
    """In a process that knows nothing of this project, and has nothing in its cache."""
    assert publish()[0] == 0
    Image.fromarray(drawing).save(tmp_path / "drawing.png")
    pixels = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    np.save(tmp_path / "pixels.npy", pixels)
    elsewhere = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": ""}
    done = run_python("-c", FRESH, MODEL, tmp_path / "drawing.png", tmp_path / "pixels.npy", cwd=tmp_path, **elsewhere)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    pipe = pipeline("chest-xray-findings", model=str(run), trust_remote_code=True)
    with torch.no_grad():
        expected = pipe.model(torch.from_numpy(pixels)).logits
    torch.testing.assert_close(torch.tensor(told["logits"]), expected)
    assert told["findings"] == pipe({"image": tmp_path / "drawing.png", "age": 63})
    assert {finding["threshold"] for finding in told["findings"]} == {0.5}
    assert all(finding["probability"] is not None for finding in told["findings"])


START = """
import runpy, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
runpy.run_path("app.py", run_name="__main__")
"""


def test_the_space_starts_from_what_was_pushed(hub, publish, tmp_path):
    assert publish()[0] == 0
    folder = tmp_path / "space"
    shutil.copytree(hub.repos["spaces", SPACE].folder, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, **hub.variables[SPACE], "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "PYTHONPATH": "",
        "HF_HOME": str(tmp_path / "hf"), "PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as file:
        server = subprocess.Popen([sys.executable, "-c", START], cwd=folder, env=environment, stdout=file, stderr=file)
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=5) as answer:
                    assert "components" in json.load(answer)
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail(log.read_text())
    finally:
        server.terminate()
        server.wait(30)
    commit = hub.variables[SPACE]["CXR_MODEL"].partition("@")[2]
    assert [r for r in hub.requests if f"/{MODEL}/resolve/{commit}/model.safetensors" in r.path]
