"""The metric's Space: evaluate opens it where this project is not installed, and computes the same figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.findings_metric import compute_figures
from cxrfpn.publishing.contents import PublishError
from cxrfpn.publishing.metric_space import metric_files, publish_metric
from tests.hubs.uploads import TOKEN, UploadHub

REPO = "org/chest_findings"
USE_IT = """
import json, sys
import evaluate
import numpy as np
data = np.load(sys.argv[1])
metric = evaluate.load(sys.argv[2])
metric.add_batch(predictions=data["scores"], references=data["labels"])
print(json.dumps(metric.compute(thresholds={"Mass": 0.3})))
assert not [name for name in sys.modules if "cxrfpn" in name]
"""


def test_evaluate_loads_it_from_the_hub_without_this_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    labels = (random.random((60, len(FINDINGS))) < 0.3).astype(np.float32)
    scores = random.random(labels.shape)
    np.savez(tmp_path / "data.npz", labels=labels, scores=scores)
    with UploadHub(tmp_path / "hub") as hub:
        with monkeypatch.context() as patch:
            hub.take_over(patch)
            assert "chest_findings.py" in publish_metric(REPO, private=False, dry_run=True) and not hub.commits
            assert f'evaluate.load("{REPO}")' in publish_metric(REPO, private=False, dry_run=False)
            publish_metric(REPO, private=False, dry_run=False)
            assert len(hub.commits) == 1
        here = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN}
        done = subprocess.run(
            [sys.executable, "-c", USE_IT, str(tmp_path / "data.npz"), REPO],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | here,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures == json.loads(json.dumps(compute_figures(labels, scores, {"Mass": 0.3})))


def test_the_module_names_nothing_of_this_project() -> None:
    module = metric_files(REPO)["chest_findings.py"].decode()
    assert "cxrfpn import" not in module and "from cxrfpn" not in module
    compile(module, "chest_findings.py", "exec")


def test_a_name_that_is_no_module_is_refused() -> None:
    with pytest.raises(PublishError, match="org/chest-findings: is no name of a metric"):
        publish_metric("org/chest-findings", private=False, dry_run=True)
