"""The model that lies at the root: it loads, it is what its papers say, and it reads real radiographs."""

import json
import math
from pathlib import Path

import pytest
import transformers
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageClassification, pipeline

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.markdown import fill
from package_cxrfpn import weights_digest
from tools import golden
from tools.model_card import ABLATION, GATE, METRICS, PAGES, SPEED, tables

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pipe():
    return pipeline("chest-xray-findings", model=str(ROOT), trust_remote_code=True)


def test_weights_and_thresholds_belong_together_and_are_small():
    weights = ROOT / "model.safetensors"
    fitted = json.loads((ROOT / "thresholds.json").read_text())["fitted_on"]
    assert fitted["weights_digest"] == weights_digest(load_file(weights))
    assert fitted["split"] == "validation" and set(fitted["positives"]) == set(FINDINGS)
    assert weights.stat().st_size < 20_000_000


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForImageClassification])
def test_both_auto_classes_give_the_classifier_in_fp32(auto):
    model = auto.from_pretrained(ROOT, trust_remote_code=True)
    assert type(model).__name__ == "CxrFpnForImageClassification"
    assert {str(weight.dtype) for weight in model.parameters()} == {"torch.float32"}


def test_it_loads_without_a_warning(caplog):
    transformers.logging.enable_propagation()
    pipeline("chest-xray-findings", model=str(ROOT), trust_remote_code=True)
    assert "fitted on other weights" not in caplog.text and "no thresholds" not in caplog.text


def test_it_gives_the_golden_scores(pipe):
    """What the libraries make of the released weights has not changed."""
    stored, measured = json.loads(golden.FILE.read_text()), golden.measure_golden(pipe)
    assert stored["weights_digest"] == measured["weights_digest"], "store them again: python -m tools.golden"
    assert measured["scores"] == pytest.approx(stored["scores"], abs=1e-4)


def test_the_pages_say_what_was_measured():
    contents = tables(*(json.loads(path.read_text()) for path in (METRICS, ABLATION, GATE, SPEED)))
    for page in PAGES:
        assert fill(page.read_text(), contents) == page.read_text(), f"{page.name}: run python -m tools.model_card"
        # A changed figure would change the page: its tables really are between the markers.
        assert fill(page.read_text(), dict.fromkeys(contents, "other")) != page.read_text()


def test_the_api_page_shows_the_calls_that_are_tested():
    assert (ROOT / "demo" / "calls.md").read_text().strip() in (ROOT / "docs" / "api.md").read_text()


def test_every_original_file_gets_fourteen_findings(pipe, nih_mini):
    files = sorted((nih_mini / "originals").iterdir())
    assert len(files) == 17
    for file in files:
        findings = pipe(file)
        assert sorted(finding["label"] for finding in findings) == sorted(FINDINGS), file
        assert all(math.isfinite(finding["score"]) for finding in findings), file
