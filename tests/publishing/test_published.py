"""What was published works: the model in a process that knows only the Hub, and the Space from its own files."""

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from tests.ports import free_port
from tests.publishing.conftest import MODEL, ROOT, SPACE


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
    answer = json.loads(done.stdout.splitlines()[-1])
    pipe = pipeline("chest-xray-findings", model=str(run), trust_remote_code=True)
    with torch.no_grad():
        expected = pipe.model(torch.from_numpy(pixels)).logits
    torch.testing.assert_close(torch.tensor(answer["logits"]), expected)
    assert answer["findings"] == pipe({"image": tmp_path / "drawing.png", "age": 63})
    assert {finding["threshold"] for finding in answer["findings"]} == {0.5}
    assert all(finding["probability"] is not None for finding in answer["findings"])


START = """
import runpy, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
runpy.run_path("app.py", run_name="__main__")
"""


def test_the_space_starts_from_what_was_pushed(hub, publish, tmp_path):
    assert publish()[0] == 0
    folder = tmp_path / "space"
    shutil.copytree(hub.repos["spaces", SPACE].folder, folder)
    port = free_port()
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
