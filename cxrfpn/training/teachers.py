"""What other models already know: their scores, which a network can learn beside the labels.

A label says that a finding was mentioned; the score of a trained model says how much an image looks like it, and the
mean of several errs less than any of them (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015). The
teachers look at the very pixels that the student sees, crop, blur and hidden patient included (Beyer et al., "Knowledge
distillation: A good teacher is patient and consistent", 2022).
"""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from cxrfpn.training.backbone import load_package


class Teachers:
    """Trained packages, each a folder or a Hub id, that only look on.

    Raises:
        BackboneError: one of them cannot be loaded.
    """

    def __init__(self, packages: Sequence[str], accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.networks = [
            load_package(package).to(accelerator.device, memory_format=torch.channels_last).requires_grad_(False)
            for package in packages
        ]

    @torch.no_grad()
    def scores(self, pixel_values: Tensor, patients: Tensor) -> Tensor:
        """The mean of their scores, [B,14] in 0..1, for inputs as the network takes them."""
        with self.accelerator.autocast():
            scores = [network(pixel_values, patients).logits.float().sigmoid() for network in self.networks]
        return torch.stack(scores).mean(dim=0)
