"""What the command writes when there is little to say."""

import json

import numpy as np

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.predictions import Scored
from cxrfpn.evaluation.reporting import Report, save_report
from cxrfpn.evaluation.scoring import Settings, compare, probabilities, score
from thresholds_cxrfpn import Thresholds

HALF = Thresholds(dict.fromkeys(FINDINGS, 0.5))


def test_healthy_images_only_leave_everything_undefined_and_nothing_broken(make_metadata, tmp_path):
    metadata = make_metadata(40, share=0)
    scored = Scored(metadata, np.zeros((40, 14), bool), np.random.default_rng(0).random((40, 14)))
    settings = Settings(resamples=10)
    told = {"system": "a.csv", "is_model": False, "source": "nih:x", "split": "all", "protocol": "official"}
    report = Report(told | score(scored, HALF, settings, metadata), scored, probabilities(scored, HALF, settings))
    save_report(report, tmp_path / "out")
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["mean_auroc"] is None and figures["undefined"] == list(FINDINGS)
    assert (
        "mean AUROC undefined" in report.summary() and "Hernia              undefined: 0 positives" in report.summary()
    )
    assert (tmp_path / "out" / "README.md").read_text().startswith("# a.csv: scores")


def test_a_comparison_is_on_the_images_that_both_have(make_scored):
    scored = make_scored(300)
    worse = Scored(scored.metadata, scored.labels, np.random.default_rng(0).random((300, 14)))
    told = compare(scored.of(np.arange(200)), worse.of(np.arange(299, 99, -1)), Settings(resamples=50))
    both = compare(scored.of(np.arange(100, 200)), worse.of(np.arange(100, 200)), Settings(resamples=50))
    assert told["images"] == 100
    assert told["findings"]["Mass"] == both["findings"]["Mass"]
