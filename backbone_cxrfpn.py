"""The backbones: networks without their classifier, which give features at strides 8, 16 and 32."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import DenseNet

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .configuration_cxrfpn import DENSENET, IMAGE_MEAN, IMAGE_STD, CxrFpnConfig
except ImportError:
    from configuration_cxrfpn import DENSENET, IMAGE_MEAN, IMAGE_STD, CxrFpnConfig

STRIDES = (8, 16, 32)


def make_backbone(config: CxrFpnConfig) -> nn.Module:
    """Return the backbone that a configuration names.

    Returns:
        a module that maps [B,3,H,W] to a tuple of features at STRIDES, with their channels in `channels`.

    Raises:
        ValueError: timm is not installed, does not know the name, or its network lacks one of STRIDES.
    """
    return DenseNetBackbone(config) if config.backbone == DENSENET else TimmBackbone(config)


class TimmBackbone(nn.Module):
    """A network of timm's, without its classifier. It brings the image processor's pixels to its own norm."""

    def __init__(self, config: CxrFpnConfig):
        super().__init__()
        self.body = _make_timm_network(config.backbone)
        stages = self.body.feature_info
        by_stride = {stage["reduction"]: index for index, stage in enumerate(stages)}
        if lacking := [stride for stride in STRIDES if stride not in by_stride]:
            raise ValueError(f"backbone {config.backbone!r} has no features at stride {lacking[0]}")
        self.stages = [by_stride[stride] for stride in STRIDES[:-1]]
        # The last level is the network's own final features, after layers that belong to no stage.
        self.channels = [stages[index]["num_chs"] for index in self.stages] + [self.body.num_features]
        means, stds = self.body.pretrained_cfg["mean"], self.body.pretrained_cfg["std"]
        # Constants, not buffers: from_pretrained would not fill a buffer that is not saved.
        self.scale = [ours / theirs for ours, theirs in zip(IMAGE_STD, stds, strict=True)]
        self.shift = [(ours - theirs) / std for ours, theirs, std in zip(IMAGE_MEAN, means, stds, strict=True)]

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """[B,3,H,W], normalised by the image processor -> features at strides 8, 16 and 32."""
        scale, shift = (pixel_values.new_tensor(values).view(3, 1, 1) for values in (self.scale, self.shift))
        last, levels = self.body.forward_intermediates(pixel_values * scale + shift, indices=self.stages)
        return (*levels, last)


def _make_timm_network(name: str) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise ValueError(f"backbone {name!r} needs timm: pip install timm (or choose {DENSENET!r})") from None
    if name not in timm.list_models():
        raise ValueError(f"backbone {name!r} is neither {DENSENET!r} nor a network that timm knows")
    return timm.create_model(name, pretrained=False, num_classes=0, global_pool="")


class DenseNetBackbone(nn.Module):
    """torchvision's DenseNet up to its classifier; gives the features of dense blocks 2, 3 and 4."""

    def __init__(self, config: CxrFpnConfig):
        super().__init__()
        densenet = DenseNet(config.growth_rate, tuple(config.block_config), config.stem_channels)
        self.rectified = config.rectified
        self.features = densenet.features
        if not self.rectified:
            del self.features.norm5
        self.channels = _block_channels(config)[1:]
        self.gradient_checkpointing = False

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """[B,3,H,W] -> features at strides 8, 16 and 32: for DenseNet-121 512, 1024 and 1024 channels.

        A tuple, as torch calls full backward hooks for tensors and tuples of them only.

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
        return tuple(levels[1:])

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
