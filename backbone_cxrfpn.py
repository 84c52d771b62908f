"""DenseNet-121 without its classifier: what dense blocks 2, 3 and 4 found in a radiograph."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import DenseNet

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .configuration_cxrfpn import CxrFpnConfig
except ImportError:
    from configuration_cxrfpn import CxrFpnConfig


class DenseNetBackbone(nn.Module):
    """torchvision's DenseNet up to its classifier; gives what dense blocks 2, 3 and 4 found."""

    def __init__(self, config: CxrFpnConfig):
        super().__init__()
        densenet = DenseNet(config.growth_rate, tuple(config.block_config), config.stem_channels)
        self.rectified = config.rectified
        self.features = densenet.features
        if not self.rectified:
            del self.features.norm5
        self.channels = _block_channels(config)[1:]
        self.gradient_checkpointing = False

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """[B,3,H,W] -> features at strides 8, 16 and 32: for DenseNet-121 512, 1024 and 1024 channels.

        Rectified, they are what DenseNet itself reads of a block: normalised, and zero where negative.
        """
        levels = []
        hidden = pixel_values
        for name, module in self.features.named_children():
            if name.startswith("denseblock"):
                hidden = self._recomputed_later(module, hidden)
                levels.append(hidden)
            elif name.startswith("transition"):
                read = module.relu(module.norm(hidden))
                hidden = module.pool(module.conv(read))
                if self.rectified:
                    levels[-1] = read
            elif name == "norm5":
                levels[-1] = F.relu(module(hidden))
            else:
                hidden = module(hidden)
        return levels[1:]

    def _recomputed_later(self, block: nn.Module, hidden: Tensor) -> Tensor:
        if not (self.gradient_checkpointing and self.training):
            return block(hidden)
        # The second, recomputing pass must not move the running statistics of BatchNorm a second time.
        return self._gradient_checkpointing_func(
            block, hidden, context_fn=lambda: (nullcontext(), _frozen_running_statistics(block))
        )


def _block_channels(config: CxrFpnConfig) -> list[int]:
    """Channels at the end of each dense block; the transition after a block halves them."""
    channels, width = [], config.stem_channels
    for layers in config.block_config:
        width += layers * config.growth_rate
        channels.append(width)
        width //= 2
    return channels


@contextmanager
def _frozen_running_statistics(module: nn.Module) -> Iterator[None]:
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
