"""The network as it is exported: logits, probabilities, finding maps and embedding in one graph, without autograd."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling_cxrfpn import CxrFpnForImageClassification
from thresholds_cxrfpn import Thresholds


class ExportedNetwork(nn.Module):
    """A trained network and its calibration as one function of pixels and patient.

    Where features are pooled, finding maps need the head's gradient, and no exported graph has autograd. The head is
    made of linear layers and ReLUs, so its gradient is a product of their weights, and is written out here.

    Args:
        network: in eval mode and single precision.
        thresholds: whose calibration makes the probabilities.
    """

    def __init__(self, network: CxrFpnForImageClassification, thresholds: Thresholds):
        super().__init__()
        self.network = network
        for name, values in _calibration(thresholds, network.findings).items():
            self.register_buffer(name, torch.tensor(values))

    def forward(self, pixel_values: Tensor, patient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score radiographs.

        Args:
            pixel_values: [B,3,H,W], normalised.
            patient: [B,3], NaN for unknown.

        Returns:
            logits [B,F], probabilities [B,F] (NaN where a finding is not calibrated), maps [B,F,h,w] of 0..1 and the
            embedding [B,E], as the model and its pipeline give them.
        """
        reading = self.network.read(self.network.pyramid_levels(pixel_values), patient)
        maps = reading.maps(slice(None), lambda pooled: self._gradients(pooled, patient))
        return reading.logits, torch.sigmoid(reading.logits * self.slope + self.intercept), maps, reading.pooled

    def _gradients(self, pooled: Tensor, patient: Tensor) -> Tensor:
        """Return the gradient of each logit with respect to the pooled features: [B,F,C]."""
        network = self.network
        image = pooled if network.image_branch is None else network.image_branch(pooled)
        gradient = network.head[-1].weight.expand(pooled.shape[0], -1, -1)
        if network.config.head_features:
            features = image if network.image_branch is None else F.relu(image)
            if network.patient_branch is not None:
                features = torch.cat([features, network.patient_branch(patient)], dim=1)
            gradient = _through_relu(gradient, network.head[0](features)) @ network.head[0].weight
        gradient = gradient[:, :, : image.shape[1]]
        if network.image_branch is not None:
            gradient = _through_relu(gradient, image) @ network.image_branch.weight
        return gradient


def _through_relu(gradient: Tensor, before: Tensor) -> Tensor:
    """Take a gradient [B,F,C] behind a ReLU to what is before it, whose values are [B,C]."""
    return gradient * (before > 0).to(gradient.dtype)[:, None]


def _calibration(thresholds: Thresholds, findings: Sequence[str]) -> dict[str, list[float]]:
    fits = [thresholds.calibration.get(name, {}) for name in findings]
    return {key: [float(fit.get(key, "nan")) for fit in fits] for key in ("slope", "intercept")}
