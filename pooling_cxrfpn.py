"""From features to logits: the two ways to pool over the places of a radiograph, and the finding maps of each.

Either the features are pooled and the head reads the result, as in the report; or the head scores every place of the
finest level, and the scores are pooled. The second way teaches the head where a finding is, because a place can only
raise the logit by its own score.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# The share of each side of a map of pooled features, at both ends, over which it fades away.
RIM = 1 / 3


@dataclass
class Reading:
    """The logits of radiographs, and what their finding maps are made of.

    Args:
        logits: [B,F].
        pooled: [B,C], the pooled features.
        shares: [B,C,h,w] of each level, where features are pooled.
        scores: [B,F,h,w] of all places, where scores are pooled.
    """

    logits: Tensor
    pooled: Tensor | None
    shares: list[Tensor] | None = None
    scores: Tensor | None = None

    def maps(self, chosen: Sequence[int] | slice, gradients: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the maps [B,F,h,w] in 0..1 of the chosen logits.

        Args:
            chosen: indices of the logits.
            gradients: of the chosen logits by the pooled features, [B,F,C]; called where features are pooled.
        """
        if self.scores is not None:
            return maps_of_scores(self.scores[:, chosen])
        assert self.shares is not None and self.pooled is not None
        slopes = gradients(self.pooled)
        # Shares of either sign nearly cancel: adding them up needs more digits than autocast's bf16 has.
        with torch.no_grad(), torch.autocast(slopes.device.type, enabled=False):
            return maps_of_features(self.shares, slopes)


def feature_shares(levels: list[Tensor], sharpness: float) -> list[Tensor]:
    """Return what each place adds to its pooled channel.

    A place counts by exp(sharpness * feature), channel by channel (as in SoftPool, Stergiou et al., 2021, here over a
    whole level), so that a strong small place is not diluted by all the others, as it is in their mean.

    Args:
        levels: [B,C,h,w] of each level.
        sharpness: 0 gives the mean over the places, a large one the maximum.

    Returns:
        tensors of the levels' shapes.
    """
    weights = [(sharpness * level.flatten(2)).softmax(dim=2).view_as(level) for level in levels]
    return [level * weight for level, weight in zip(levels, weights, strict=True)]


def sum_shares(shares: list[Tensor]) -> Tensor:
    """Sum the shares [B,C,h,w] of each level over its places -> [B, levels * C]."""
    return torch.cat([share.sum(dim=(2, 3)) for share in shares], dim=1)


def pool_scores(scores: Tensor, sharpness: float) -> Tensor:
    """Pool the scores of all places into logits: log(mean(exp(sharpness * score))) / sharpness.

    It is the log-sum-exp pooling of Pinheiro and Collobert ("From image-level to pixel-level labeling", 2015).

    Args:
        scores: [B,F,h,w].
        sharpness: 0 gives the mean over the places, a large one the maximum.

    Returns:
        [B,F].
    """
    places = scores.flatten(2)
    if sharpness == 0:
        return places.mean(dim=2)
    return (torch.logsumexp(sharpness * places, dim=2) - math.log(places.shape[2])) / sharpness


def maps_of_scores(scores: Tensor) -> Tensor:
    """Turn the scores of all places [B,F,h,w] into maps in 0..1, each from its lowest place to its highest."""
    return scale_to_peak(scores - scores.amin(dim=(2, 3), keepdim=True))


def maps_of_features(shares: list[Tensor], gradients: Tensor) -> Tensor:
    """Return how much each place adds to the logits, as maps in 0..1.

    The three levels are brought to the finest one and added. A map shows how far a place stands out from the place that
    adds least, and fades towards the rim, because zero padding makes the rim speak for anything.

    Args:
        shares: [B,C,h,w] of each level, the finest first.
        gradients: [B,F,levels*C] of the logits with respect to the pooled channels.

    Returns:
        [B,F,h,w] at the finest level.
    """
    size = shares[0].shape[-2:]
    total = torch.zeros((), device=gradients.device)
    for share, gradient in zip(shares, gradients.chunk(len(shares), dim=2), strict=True):
        # A level is shared out among its places, so a coarse place weighs more than a fine one.
        evidence = torch.einsum("bfc,bchw->bfhw", gradient.float(), share.float())
        total = total + F.interpolate(evidence, size=size, mode="bilinear", align_corners=False)
    above = total - total.amin(dim=(2, 3), keepdim=True)
    return scale_to_peak(above * _fading(size[0], total)[:, None] * _fading(size[1], total))


def scale_to_peak(maps: Tensor) -> Tensor:
    """Divide each map [B,F,h,w] of 0 and more by its peak; a map of zeros stays as it is."""
    return maps / maps.amax(dim=(2, 3), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def _fading(places: int, like: Tensor) -> Tensor:
    """Return [places] factors from near 0 at both ends up to 1 at a RIM from them, along a squared sine."""
    from_edge = torch.arange(places, device=like.device, dtype=like.dtype).add(0.5) / places
    from_edge = torch.minimum(from_edge, 1 - from_edge)
    return torch.sin(torch.pi / 2 * (from_edge / RIM).clamp_max(1)) ** 2
