"""Teachers: trained networks whose scores and features another network learns beside the labels.

A label says that a report mentioned a finding; the score of a trained network says how much an image looks like it, and
the mean of several is wrong less often than each of them (Hinton et al., "Distilling the Knowledge in a Neural
Network", 2015). Their features hold more than their scores do (Romero et al., "FitNets", 2015), among it what ImageNet
taught them. Teachers see the same crop, blur and hidden patient as the student (Beyer et al., "Knowledge distillation:
A good teacher is patient and consistent", 2022), each at the size that it was trained at.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from loading_cxrfpn import load_network
from modeling_cxrfpn import CxrFpnForImageClassification


class Teachers:
    """Trained packages, each a folder or a Hub id; their weights do not change.

    Raises:
        PackageError: one of them cannot be loaded.
    """

    def __init__(self, packages: Sequence[str]) -> None:
        self.networks = [load_network(package).requires_grad_(False) for package in packages]

    def prepare(self, accelerator: Accelerator) -> None:
        """Move the teachers to the device on which the student learns."""
        self.accelerator = accelerator
        for network in self.networks:
            network.to(accelerator.device, memory_format=torch.channels_last)

    @torch.no_grad()
    def score(self, pixel_values: Tensor, patients: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """Score a batch.

        Args:
            pixel_values, patients: [B,3,H,W] and [B,3], as the student takes them.

        Returns:
            the mean of their scores, [B,14] in 0..1, and the features of each teacher's backbone, one a stride.
        """
        scores, features = [], []
        with self.accelerator.autocast():
            for network in self.networks:
                with backbone_features(network) as seen:
                    output = network(resize(pixel_values, network.config.image_size), patients)
                scores.append(output.logits.float().sigmoid())
                features.append([level.float() for level in seen])
        return torch.stack(scores).mean(dim=0), features


class Student(nn.Module):
    """A network with a 1x1 convolution from each of its features to each teacher's; only the network is kept."""

    def __init__(self, network: CxrFpnForImageClassification, teachers: Teachers) -> None:
        super().__init__()
        self.network = network
        pairs = [zip(network.backbone.channels, each.backbone.channels, strict=True) for each in teachers.networks]
        self.projections = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(own, wanted, 1) for own, wanted in channels) for channels in pairs
        )

    def forward(self, pixel_values: Tensor, patients: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """Return the logits [B,14], and the network's features as each teacher has them."""
        with backbone_features(self.network) as levels:
            logits = self.network(pixel_values, patients).logits
        projected = [[layer(level) for layer, level in zip(layers, levels, strict=True)] for layers in self.projections]
        return logits, projected


def feature_loss(projected: Sequence[Sequence[Tensor]], wanted: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return how far the student's features point away from the teachers': 1 - cosine, 0 to 2.

    It is the mean over places, strides and teachers, and, with the same weight, over each stride's mean place.

    Args:
        projected, wanted: [B,C,h,w] of each teacher and stride; the student's are resized to the teacher's places.
    """
    losses = []
    for ours, theirs in zip(projected, wanted, strict=True):
        for own, level in zip(ours, theirs, strict=True):
            own = F.interpolate(own.float(), size=level.shape[-2:], mode="bilinear", align_corners=False)
            places = F.cosine_similarity(own, level, dim=1).mean()
            pooled = F.cosine_similarity(own.mean(dim=(2, 3)), level.mean(dim=(2, 3)), dim=1).mean()
            losses.append(1 - (places + pooled) / 2)
    return torch.stack(losses).mean()


@contextmanager
def backbone_features(network: CxrFpnForImageClassification) -> Iterator[list[Tensor]]:
    """Collect the features that the backbone gives during one pass, the finest first."""
    seen: list[Tensor] = []
    handle = network.backbone.register_forward_hook(lambda module, inputs, output: seen.extend(output))
    try:
        yield seen
    finally:
        handle.remove()


def resize(pixel_values: Tensor, size: int) -> Tensor:
    """Resize [B,3,H,W] to the size that a network was trained at."""
    if pixel_values.shape[-1] == size:
        return pixel_values
    return F.interpolate(pixel_values, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
