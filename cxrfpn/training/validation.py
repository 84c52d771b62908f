"""Validate a network after each epoch: every validation image once, whichever process scores it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.loading import Batch
from cxrfpn.evaluation.findings_metric import compute_figures
from cxrfpn.evaluation.metrics import auroc_by_finding
from cxrfpn.training.loss import FindingsLoss
from modeling_cxrfpn import CxrFpnForImageClassification

# A file with as many pixels on its shorter side shows all that a network sees at the sizes that are trained here.
SEEN_SIDE = 200


@dataclass(frozen=True)
class ValidationResult:
    """Labels, scores and loss of the validation images, in the order of the shards.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown.
        scores: [N,F] in 0..1.
        source_sides: [N], the shorter side of each original in pixels.
        loss: the mean loss.
        findings: names of the columns.
    """

    labels: NDArray[np.float32]
    scores: NDArray[np.float32]
    source_sides: NDArray[np.int32]
    loss: float
    findings: tuple[str, ...] = FINDINGS

    def figures(self) -> dict[str, float]:
        """Return the report's figures of an epoch: means over findings, calls at a score of 0.5."""
        measured = compute_figures(self.labels, self.scores, findings=self.findings)
        return {
            "validation_loss": self.loss,
            "precision": measured["macro"]["precision"],
            "recall": measured["macro"]["recall"],
            "micro_f1": measured["micro"]["f1"],
            "macro_f1": measured["macro"]["f1"],
            "mean_auroc": measured["mean_auroc"],
            "auroc_within_sharpness": auroc_within_sharpness(
                self.labels, self.scores, self.source_sides, self.findings
            ),
        }


def validate(
    network: CxrFpnForImageClassification,
    batches: Iterable[tuple[Batch, Tensor, Tensor]],
    accelerator: Accelerator,
    loss: FindingsLoss,
) -> ValidationResult:
    """Score the validation images, this process its share, and bring the shares of all processes together.

    Args:
        network: in eval mode.
        batches: this process's share, as `feeding.validation_batches` yields it.
        loss: ready for the cycle.
    """
    shares: list[tuple[int, NDArray, NDArray, NDArray]] = []
    with torch.inference_mode(), accelerator.autocast():
        for batch, pixel_values, patients in batches:
            logits = network(pixel_values, patients).logits.float().cpu().numpy()
            shares.append((batch.first, logits, batch.labels.numpy(), batch.source_sides.numpy()))
    shares = sorted(gather_object(shares), key=lambda share: share[0])
    logits, labels, source_sides = (np.concatenate([share[index] for share in shares]) for index in (1, 2, 3))
    scores = torch.from_numpy(logits).sigmoid().numpy()
    mean_loss = loss.of_labels(torch.from_numpy(logits), torch.from_numpy(labels))
    return ValidationResult(labels, scores, source_sides, float(mean_loss), network.findings)


def auroc_within_sharpness(
    labels: NDArray, scores: NDArray, source_sides: NDArray, findings: Sequence[str] = FINDINGS
) -> float:
    """Return the mean AUROC within sharp images and within blurred ones, averaged.

    Where sharpness goes with the labels, a pooled figure rewards a model that reads sharpness; this one does not. A
    group without a finding that is both present and absent in it is left out.
    """
    sharp = source_sides >= SEEN_SIDE
    means = []
    for group in (sharp, ~sharp):
        areas = auroc_by_finding(labels[group], scores[group], findings).values() if group.any() else ()
        if known := [area for area in areas if area is not None]:
            means.append(np.mean(known))
    return float(np.mean(means))
