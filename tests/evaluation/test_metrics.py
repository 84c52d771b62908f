"""The figures against the report's published ones, against scikit-learn's own, and where they are undefined."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn import metrics as sk

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.intervals import Bootstrap
from cxrfpn.evaluation.metrics import auroc_by_finding, mean_auroc, measure

ROOT = Path(__file__).resolve().parents[2]
METRIC = ROOT / "cxrfpn" / "evaluation" / "findings_metric.py"
HALF = dict.fromkeys(FINDINGS, 0.5)

# F1 and confusion matrix [TN FP / FN TP] of the report, on its 8,587 test images (Nodule's counts lack 12 of them).
PUBLISHED = {
    "Hernia": (0.4237, 8494, 50, 18, 25),
    "Nodule": (0.2261, 7186, 230, 982, 177),
    "Fibrosis": (0.1538, 8023, 252, 265, 47),
    "Pneumothorax": (0.4736, 6676, 975, 343, 593),
    "Pleural_Thickening": (0.2565, 6541, 1401, 344, 301),
    "Consolidation": (0.0259, 7749, 25, 802, 11),
    "Emphysema": (0.4416, 8040, 101, 291, 155),
    "Pneumonia": (0.0330, 8229, 110, 242, 6),
    "Atelectasis": (0.4695, 5451, 1057, 1117, 962),
    "Infiltration": (0.4147, 5372, 1117, 1257, 841),
}


@pytest.mark.parametrize("finding", PUBLISHED)
def test_the_reports_matrices_give_the_reports_f1(finding):
    f1, *counts = PUBLISHED[finding]
    tn, fp, fn, tp = counts
    index = FINDINGS.index(finding)
    labels, scores = np.zeros((sum(counts), 14), bool), np.zeros((sum(counts), 14))
    labels[:, index] = np.repeat([0, 0, 1, 1], counts)
    scores[:, index] = np.repeat([0.2, 0.7, 0.2, 0.5], counts)
    figures = measure(labels, scores, HALF)
    figure = figures["findings"][finding]
    assert round(figure["f1"], 4) == f1 == round(figures["macro"]["f1"], 4)
    assert figure["confusion"] == [[tn, fp], [fn, tp]]
    assert figure["positives"] == tp + fn and figure["specificity"] == tn / (tn + fp)
    assert set(figures["undefined"]) == set(FINDINGS) - {finding}


def test_every_figure_is_scikit_learns(make_scored):
    scored = make_scored()
    thresholds = {finding: 0.2 + 0.02 * index for index, finding in enumerate(FINDINGS)}
    labels, scores = scored.labels, scored.scores
    calls = scores >= np.array(list(thresholds.values()))
    figures = measure(labels, scores, thresholds)
    assert figures["exact_match"] == (labels == calls).all(axis=1).mean()
    assert figures["hamming_loss"] == pytest.approx((labels != calls).mean())
    assert figures["accuracy"] == pytest.approx((labels == calls).mean())
    assert figures["micro"]["f1"] == sk.f1_score(labels, calls, average="micro")
    assert figures["macro"]["precision"] == pytest.approx(sk.precision_score(labels, calls, average="macro"))
    assert figures["macro"]["recall"] == pytest.approx(sk.recall_score(labels, calls, average="macro"))
    assert figures["mean_auroc"] == pytest.approx(sk.roc_auc_score(labels, scores))
    assert figures["macro"]["average_precision"] == pytest.approx(sk.average_precision_score(labels, scores))
    assert figures["label_ranking_average_precision"] == sk.label_ranking_average_precision_score(labels, scores)
    for index, finding in enumerate(FINDINGS):
        figure = figures["findings"][finding]
        assert figure["brier"] == pytest.approx(((scores - labels) ** 2)[:, index].mean())
        assert figure["confusion"] == sk.confusion_matrix(labels[:, index], calls[:, index]).tolist()
        assert figure["f1"] == sk.f1_score(labels[:, index], calls[:, index])


def test_a_finding_without_positives_or_negatives_is_named_and_left_out_of_means(make_scored):
    scored = make_scored()
    labels = scored.labels.copy()
    labels[:, 3], labels[:, 13] = True, False
    figures = measure(labels, scored.scores, HALF)
    assert figures["undefined"] == ["Infiltration", "Hernia"]
    for name in ("auroc", "average_precision", "precision", "recall", "specificity", "f1"):
        assert figures["findings"]["Hernia"][name] is None and figures["findings"]["Infiltration"][name] is None
        known = [figure[name] for figure in figures["findings"].values() if figure[name] is not None]
        assert len(known) == 12 and figures["macro"][name] == pytest.approx(np.mean(known))
    assert mean_auroc(labels, scored.scores) == figures["mean_auroc"]
    assert np.isnan(mean_auroc(np.zeros((5, 14)), np.zeros((5, 14))))
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [
        (np.zeros((4, 14)), np.zeros((4, 13)), r"must both be \[N,14\]"),
        (np.zeros((0, 14)), np.zeros((0, 14)), r"must both be \[N,14\]"),
        (np.full((4, 14), 2), np.zeros((4, 14)), "labels must be 0 or 1"),
        (np.zeros((4, 14)), np.full((4, 14), np.nan), "finite"),
        (np.zeros((4, 14)), np.full((4, 14), -2.0), "apply a sigmoid"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels, scores, said):
    with pytest.raises(ValueError, match=said):
        measure(labels, scores, HALF)
    with pytest.raises(ValueError, match="thresholds lack Hernia"):
        measure(np.zeros((2, 14)), np.zeros((2, 14)), dict.fromkeys(FINDINGS[:-1], 0.5))


def test_as_a_metric_of_evaluate(make_scored, tmp_path):
    scored = make_scored()
    metric = evaluate.load(str(METRIC), cache_dir=str(tmp_path))
    for start in range(0, len(scored.labels), 100):
        rows = slice(start, start + 100)
        metric.add_batch(predictions=scored.scores[rows], references=scored.labels[rows].astype(int))
    figures = metric.compute(thresholds={"Mass": 0.3})
    assert figures == measure(scored.labels, scored.scores, {**HALF, "Mass": 0.3})


def test_unknown_labels_do_not_count_in_the_metric(make_scored, tmp_path):
    """Each finding's figures are scikit-learn's over the images in which it is known."""
    scored = make_scored()
    labels = scored.labels.astype(np.float32)
    labels[np.random.default_rng(1).random(labels.shape) < 0.3] = np.nan
    metric = evaluate.load(str(METRIC), cache_dir=str(tmp_path))
    metric.add_batch(predictions=scored.scores, references=labels)
    figures = metric.compute()
    for index, finding in enumerate(FINDINGS):
        known = ~np.isnan(labels[:, index])
        truth, values = labels[known, index], scored.scores[known, index]
        assert figures["findings"][finding]["auroc"] == pytest.approx(sk.roc_auc_score(truth, values))
        assert figures["findings"][finding]["f1"] == pytest.approx(sk.f1_score(truth, values >= 0.5))
        assert figures["findings"][finding]["positives"] == int(truth.sum())


HALF_OF_THE_IMAGES = """
import json, sys
import evaluate
import numpy as np
metric_path, data, cache, rank = sys.argv[1:]
metric = evaluate.load(metric_path, num_process=2, process_id=int(rank), experiment_id="halves", cache_dir=cache)
data = np.load(data)
metric.add_batch(predictions=data["scores"][int(rank)::2], references=data["labels"][int(rank)::2].astype(int))
print(json.dumps(metric.compute()))
"""


@pytest.mark.slow
def test_over_two_processes(make_scored, run_python, tmp_path):
    scored = make_scored(200)
    np.savez(tmp_path / "data.npz", labels=scored.labels, scores=scored.scores)
    with ThreadPoolExecutor(2) as pool:
        arguments = [METRIC, tmp_path / "data.npz", tmp_path]
        runs = [
            pool.submit(run_python, "-c", HALF_OF_THE_IMAGES, *arguments, rank, PYTHONPATH=str(ROOT)) for rank in (0, 1)
        ]
    done = [run.result() for run in runs]
    assert [run.returncode for run in done] == [0, 0], done[0].stderr[-2000:]
    first, second = (json.loads(run.stdout.splitlines()[-1]) for run in done)
    whole = measure(scored.labels, scored.scores, HALF)
    assert second is None
    assert first["mean_auroc"] == pytest.approx(whole["mean_auroc"])
    assert first["findings"]["Mass"]["confusion"] == whole["findings"]["Mass"]["confusion"]


def test_an_unknown_label_counts_nowhere():
    """Figures with unknown labels are those of the images in which each finding is known."""
    random = np.random.default_rng(3)
    labels, scores = (random.random((60, 14)) < 0.4).astype(float), random.random((60, 14))
    thresholds = dict.fromkeys(FINDINGS, 0.5)
    truth = labels.copy()
    truth[:25, 0], truth[:, 1] = np.nan, np.nan
    figures, kept = measure(truth, scores, thresholds), measure(labels[25:], scores[25:], thresholds)
    assert figures["findings"][FINDINGS[0]] == {**kept["findings"][FINDINGS[0]], "unknown": 25}
    assert figures["findings"][FINDINGS[2]] == measure(labels, scores, thresholds)["findings"][FINDINGS[2]]
    nobody = figures["findings"][FINDINGS[1]]
    assert nobody["auroc"] is nobody["brier"] is nobody["accuracy"] is None and nobody["positives"] == 0
    assert figures["undefined"] == [FINDINGS[1]] and figures["exact_match"] is None
    known = ~np.isnan(truth)
    assert figures["hamming_loss"] == ((scores >= 0.5) != labels)[known].mean()
    assert auroc_by_finding(truth, scores)[FINDINGS[0]] == kept["findings"][FINDINGS[0]]["auroc"]
    patients = np.arange(60).astype(str)
    areas = Bootstrap.draw(patients, 40).auroc(truth, scores)
    assert np.isnan(areas[:, 1]).all() and not np.isnan(areas[:, [0, 2]]).any()
    once = Bootstrap.draw(patients, 1).once().auroc(truth, scores)[0]
    assert once[0] == pytest.approx(kept["findings"][FINDINGS[0]]["auroc"])
