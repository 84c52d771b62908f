"""All of our figures as one metric of Hugging Face's evaluate; it loads by its path and needs no network.

    metric = evaluate.load("cxrfpn/evaluation/findings_metric.py")
    metric.add_batch(predictions=scores, references=labels)
    figures = metric.compute(thresholds={...})

A label of NaN is unknown and does not count. Over several processes, give `evaluate.load` num_process, process_id and a
common experiment_id, as for any metric; the first process gets the figures and the others None.
"""

# evaluate reads the imports of a metric with a regular expression: one import a line.
import datasets
import evaluate

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.metrics import measure

DESCRIPTION = "Exact match, Hamming loss, precision, recall, F1, AUROC, average precision, Brier score of 14 findings."


class FindingsMetric(evaluate.Metric):
    """Predictions are 14 scores in 0..1, references 14 labels of 0, 1 and NaN, both in the order of FINDINGS."""

    def _info(self) -> evaluate.MetricInfo:
        row = {
            "predictions": datasets.Sequence(datasets.Value("float64")),
            "references": datasets.Sequence(datasets.Value("float32")),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=__doc__, features=datasets.Features(row)
        )

    def _compute(self, predictions, references, thresholds=None):
        return compute_figures(references, predictions, thresholds)


def compute_figures(labels, scores, thresholds=None, findings=FINDINGS):
    """Compute the metric's figures from arrays in memory, as validation and score.py do.

    Args:
        labels, scores: as `cxrfpn.evaluation.metrics.measure` takes them.
        thresholds: {finding: 0..1}; 0.5 where none is given.
        findings: the names of the findings.

    Returns:
        the figures of `measure`.
    """
    return measure(labels, scores, {**dict.fromkeys(findings, 0.5), **(thresholds or {})}, findings)
