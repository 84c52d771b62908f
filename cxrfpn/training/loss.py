"""The loss: weighted cross-entropy over the findings, and what teachers add to it."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from configuration_cxrfpn import FINDINGS
from cxrfpn.training.recipe import Cycle, Loss
from cxrfpn.training.teachers import Student, Teachers, feature_loss
from modeling_cxrfpn import CxrFpnForImageClassification

# Ridnik et al. (2021): a negative scored under this counts as perfectly separated.
NEGATIVE_MARGIN = 0.05


class FindingsLoss:
    """The loss that a recipe asks for.

    Args:
        settings: the recipe's `loss`.
        findings: names of the labels' columns.

    Raises:
        PackageError: a teacher cannot be loaded.
    """

    def __init__(self, settings: Loss, findings: Sequence[str] = FINDINGS) -> None:
        self.settings, self.findings = settings, findings
        self.teachers = Teachers(settings.teachers) if settings.teachers else None

    def wrap(self, network: CxrFpnForImageClassification) -> nn.Module:
        """Return what is trained: the network, or a `Student` around it where features are learnt too."""
        if self.teachers is not None and self.settings.feature_weight:
            return Student(network, self.teachers)
        return network

    def start_cycle(self, cycle: Cycle, labels: Tensor, accelerator: Accelerator) -> None:
        """Weight the findings for a cycle, and bring weights and teachers to the device.

        Args:
            labels: [N,F] of the images that an epoch shows.
        """
        weights = loss_weights(self.settings, labels, cycle, self.findings)
        self.pos_weight = torch.tensor(weights, device=accelerator.device)
        if self.teachers is not None:
            self.teachers.prepare(accelerator)

    def of_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss by the labels alone: the mean over [B,F] logits and labels."""
        return compute_loss(logits, labels, self.settings, self.pos_weight.to(logits.device))

    def __call__(self, model: nn.Module, pixel_values: Tensor, patients: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a model over a batch.

        Args:
            model: what `wrap` returned, as accelerate wraps it.
            pixel_values: [B,3,H,W], normalised.
            patients: [B,3], NaN for unknown.
            labels: [B,F] of 0 and 1, NaN for unknown.
        """
        output = model(pixel_values, patients)
        logits, projected = output if self.settings.feature_weight else (output.logits, [])
        loss = self.of_labels(logits, labels)
        if self.teachers is None:
            return loss
        scores, features = self.teachers.score(pixel_values, patients)
        # Unweighted: the teachers' scores have the weights of their own training in them.
        taught = F.binary_cross_entropy_with_logits(logits.float(), scores)
        loss = torch.lerp(loss, taught, self.settings.teacher_share)
        return loss + self.settings.feature_weight * feature_loss(projected, features) if projected else loss


def finding_weights(
    labels: Tensor, overrides: Mapping[str, float] = {}, findings: Sequence[str] = FINDINGS
) -> list[float]:
    """Return a weight for the positives of each finding: log(1 + N / n).

    On our rebuild of the report's training set the rule differs from the report's table by 0.133 in the mean, or by
    0.036 where only images with one finding are mirrored.

    Args:
        labels: [N,F] of 0 and 1, NaN for unknown, of the images that an epoch shows. A finding without positives is
            weighted as if it had one.
        overrides: {finding: weight} that stand in place of the rule.
    """
    known = (~labels.isnan()).sum(dim=0)
    weights = torch.log1p(known / labels.nansum(dim=0).clamp_min(1)).tolist()
    return [overrides.get(name, weight) for name, weight in zip(findings, weights, strict=True)]


def loss_weights(settings: Loss, labels: Tensor, cycle: Cycle, findings: Sequence[str] = FINDINGS) -> list[float]:
    """Return the weights of a cycle's loss, one a finding."""
    if settings.pos_weight == "balanced":
        return finding_weights(labels, cycle.pos_weight, findings)
    return [cycle.pos_weight.get(name, 1.0) for name in findings]


def compute_loss(logits: Tensor, labels: Tensor, settings: Loss, pos_weight: Tensor) -> Tensor:
    """Return the weighted binary cross-entropy, the mean over images and findings, in fp32.

    An unknown label adds 0 and counts in the mean: the weight of an image must not depend on the images beside it.

    Args:
        logits: [B,F].
        labels: [B,F] of 0 and 1, NaN for unknown.
        pos_weight: [F].
    """
    logits, unknown = logits.float(), labels.isnan()
    targets = labels.masked_fill(unknown, 0.0) * (1 - 2 * settings.label_smoothing) + settings.label_smoothing
    if not settings.negative_focus:
        losses = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight, reduction="none")
        return losses.masked_fill(unknown, 0.0).mean()
    shifted = (logits.sigmoid() - NEGATIVE_MARGIN).clamp_min(0)
    positive = pos_weight * targets * F.logsigmoid(logits)
    negative = (1 - targets) * shifted**settings.negative_focus * torch.log1p(-shifted.clamp_max(1 - 1e-6))
    return -(positive + negative).masked_fill(unknown, 0.0).mean()
