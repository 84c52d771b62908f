"""Radiograph and patient in, 14 logits out; and, for each finding, where in the radiograph it was seen."""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import logging

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .backbone_cxrfpn import make_backbone
    from .configuration_cxrfpn import FINDINGS, CxrFpnConfig
    from .patient_cxrfpn import PATIENT_INPUTS
except ImportError:
    from backbone_cxrfpn import make_backbone
    from configuration_cxrfpn import FINDINGS, CxrFpnConfig
    from patient_cxrfpn import PATIENT_INPUTS

logger = logging.get_logger(__name__)

PYRAMID_STRIDES = {"P3": 8, "P4": 16, "P5": 32}
# The share of each side of a finding map, at both ends, over which it fades away.
RIM = 1 / 3
# Normalised radiographs lie within about 3 of zero; raw pixels of 0..255 do not.
LARGEST_PLAUSIBLE_PIXEL = 20.0


class PatientBranch(nn.Module):
    """Age, view position and sex -> features; each unknown input adds a learned vector in place of its own weights."""

    def __init__(self, config: CxrFpnConfig):
        super().__init__()
        self.known = nn.Linear(len(PATIENT_INPUTS), config.patient_features)
        self.unknown = nn.Linear(len(PATIENT_INPUTS), config.patient_features, bias=False)

    def forward(self, patient: Tensor) -> Tensor:
        """[B,3] with NaN for unknown -> [B, patient_features]."""
        missing = patient.isnan()
        return F.relu(self.known(patient.masked_fill(missing, 0.0)) + self.unknown(missing.to(patient.dtype)))


class CxrFpnForImageClassification(PreTrainedModel):
    """DenseNet-121 -> Feature Pyramid Network -> fusion with the patient -> one logit a finding."""

    config_class = CxrFpnConfig
    base_model_prefix = "cxrfpn"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["DenseNetBackbone", "TimmBackbone"]

    def __init__(self, config: CxrFpnConfig):
        super().__init__(config)
        self.backbone = make_backbone(config)
        if config.pyramid_channels:
            norm = nn.BatchNorm2d if config.rectified else None
            self.pyramid = FeaturePyramidNetwork(self.backbone.channels, config.pyramid_channels, norm_layer=norm)
            pooled = len(PYRAMID_STRIDES) * config.pyramid_channels
        else:
            self.pyramid = None
            pooled = self.backbone.channels[-1]
        self.image_branch = nn.Linear(pooled, config.image_features) if config.image_features else None
        self.patient_branch = PatientBranch(config) if config.patient_features else None
        joined = (config.image_features or pooled) + config.patient_features
        hidden = [nn.Linear(joined, config.head_features), nn.ReLU()] if config.head_features else []
        last = nn.Linear(config.head_features or joined, len(FINDINGS))
        self.head = nn.Sequential(*hidden, nn.Dropout(config.dropout), last)
        self.post_init()

    def forward(
        self, pixel_values: Tensor, patient: Tensor | None = None, labels: Tensor | None = None, **_: object
    ) -> ImageClassifierOutput:
        """Score radiographs.

        Args:
            pixel_values: [B,3,H,W] float, normalised by the image processor.
            patient: [B,3] as `Patient.encode` gives it, NaN for unknown; None where nothing is known.
            labels: [B,14] of 0 and 1 (or soft labels between), in the order of `FINDINGS`.

        Returns:
            logits [B,14], and the loss (binary cross-entropy weighted by `config.pos_weight`) when labels are given.
        """
        self._check_inputs(pixel_values, patient, labels)
        logits = self._classify(self.pool(self.pyramid_levels(pixel_values)), self._patient(patient, pixel_values))
        loss = None if labels is None else self._loss(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)

    def finding_maps(
        self, pixel_values: Tensor, patient: Tensor | None = None, findings: Sequence[str] = FINDINGS
    ) -> Tensor:
        """Show where each finding was seen: what every place of the pyramid adds to the finding's logit.

        After the pyramid come only pooling, of which every place has its share, and a small head. What a place adds to
        the logit is, to first order, its share times the head's gradient; where pooling is the mean, Grad-CAM and
        HiResCAM are the same. The three levels are brought to the finest one and added. The map shows how far a place
        stands out from the place that speaks for the finding least, and fades towards the rim: zero padding makes the
        rim speak for anything.

        Args:
            pixel_values: [B,3,H,W] float, normalised by the image processor.
            patient: [B,3] with NaN for unknown, or None.
            findings: names, each one of `FINDINGS`.

        Returns:
            [B, len(findings), H/8, W/8] in 0..1, each map scaled to its own peak, whatever the finding's score.

        Raises:
            ValueError: for a name that is no finding.
        """
        return self.forward_with_maps(pixel_values, patient, findings)[1]

    def forward_with_maps(
        self, pixel_values: Tensor, patient: Tensor | None = None, findings: Sequence[str] = FINDINGS
    ) -> tuple[Tensor, Tensor]:
        """The logits [B,14] and the finding maps of one pass over the radiographs; see `finding_maps`."""
        self._check_inputs(pixel_values, patient, None)
        if unknown := [name for name in findings if name not in FINDINGS]:
            raise ValueError(f"no finding is called {', '.join(map(repr, unknown))}; known are {', '.join(FINDINGS)}")
        with torch.no_grad():
            levels = self.pyramid_levels(pixel_values)
        with torch.inference_mode(False), torch.enable_grad():
            shares = self._shares([level.detach().clone() for level in levels])
            pooled = _summed(shares).requires_grad_()
            logits = self._classify(pooled, self._patient(patient, pixel_values).clone())
            gradients = [
                torch.autograd.grad(logits[:, FINDINGS.index(name)].sum(), pooled, retain_graph=True)[0]
                for name in findings
            ]
        # Shares of either sign nearly cancel: adding them up needs more digits than autocast's bf16 has.
        with torch.no_grad(), torch.autocast(pixel_values.device.type, enabled=False):
            return logits.detach(), _evidence_maps(shares, torch.stack(gradients, dim=1))

    def pyramid_levels(self, pixel_values: Tensor) -> list[Tensor]:
        """[B,3,H,W] -> the pyramid's levels, the finest first: [B, pyramid_channels, H/8, W/8], then H/16, H/32.

        Without a pyramid, the last dense block alone: [B, 1024, H/32, W/32]. As the report has it (not rectified), all
        between a dense block and the mean over its places is linear: what stands out in one place is evened out by the
        others, and adding levels top down does nothing that a linear layer on the blocks' own means could not.
        """
        levels = self.backbone(pixel_values)
        if self.pyramid is None:
            return levels[-1:]
        merged = self.pyramid(OrderedDict(zip(PYRAMID_STRIDES, levels, strict=True))).values()
        return [F.relu(level) if self.config.rectified else level for level in merged]

    def pool(self, levels: list[Tensor]) -> Tensor:
        """Every channel of every level, summed over its places' shares -> [B, levels * pyramid_channels]."""
        return _summed(self._shares(levels))

    def _shares(self, levels: list[Tensor]) -> list[Tensor]:
        """What each place adds to the pooled channel; of the levels' shapes.

        A place counts by exp(sharpness * feature), channel by channel (as in SoftPool, Stergiou et al., 2021, here over
        a whole level): what stands out in one small place is not diluted by all the others, as it is in their mean.
        """
        levels = [level.to(self.head[-1].weight.dtype) for level in levels]
        weights = [(self.config.pooling_sharpness * level.flatten(2)).softmax(dim=2).view_as(level) for level in levels]
        return [level * weight for level, weight in zip(levels, weights, strict=True)]

    def _patient(self, patient: Tensor | None, pixel_values: Tensor) -> Tensor:
        dtype = self.head[-1].weight.dtype
        if patient is None:
            return pixel_values.new_full((len(pixel_values), len(PATIENT_INPUTS)), math.nan, dtype=dtype)
        return patient.to(device=pixel_values.device, dtype=dtype)

    def _classify(self, pooled: Tensor, patient: Tensor) -> Tensor:
        # Never in autocast's bf16, whose 8 bits would leave a few hundred different scores, and many a tie.
        with torch.autocast(pooled.device.type, enabled=False):
            features = pooled if self.image_branch is None else F.relu(self.image_branch(pooled))
            if self.patient_branch is not None:
                features = torch.cat([features, self.patient_branch(patient)], dim=1)
            return self.head(features)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = self.config.pos_weight
        pos_weight = None if weight is None else torch.tensor(weight, device=logits.device, dtype=torch.float32)
        return F.binary_cross_entropy_with_logits(logits.float(), labels.float(), pos_weight=pos_weight)

    def _check_inputs(self, pixel_values: Tensor, patient: Tensor | None, labels: Tensor | None) -> None:
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            raise ValueError(f"pixel_values must be [batch, 3, height, width], got {list(pixel_values.shape)}")
        if not pixel_values.is_floating_point():
            raise ValueError(f"pixel_values are {pixel_values.dtype}, not normalised: use the image processor")
        for name, value, width in (("patient", patient, len(PATIENT_INPUTS)), ("labels", labels, len(FINDINGS))):
            if value is not None and value.shape != (pixel_values.shape[0], width):
                raise ValueError(f"{name} must be [{pixel_values.shape[0]}, {width}], got {list(value.shape)}")
        # Raw pixels give nearly the same answer for every image, silently; looking costs a wait on a GPU, so not there.
        if pixel_values.device.type == "cpu" and not (self.training or torch.compiler.is_compiling()):
            if pixel_values.abs().amax() > LARGEST_PLAUSIBLE_PIXEL:
                logger.warning_once("pixel_values look like raw pixels (over 20): pass images through the processor")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as torchvision and torch do, leaving alone what a checkpoint has filled."""
        if isinstance(module, nn.Conv2d):
            # torchvision: the backbone's convolutions have no bias, the pyramid's do.
            init.kaiming_normal_(module.weight) if module.bias is None else init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = 1 / math.sqrt(module.in_features)
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)


def _summed(shares: list[Tensor]) -> Tensor:
    """Shares [B,C,h,w] of each level -> [B, levels * C]."""
    return torch.cat([share.sum(dim=(2, 3)) for share in shares], dim=1)


def _evidence_maps(shares: list[Tensor], gradients: Tensor) -> Tensor:
    """Shares [B,C,h,w] (finest first) and gradients [B,F,levels*C] -> maps [B,F,h,w] in 0..1."""
    size = shares[0].shape[-2:]
    total = torch.zeros((), device=gradients.device)
    for share, gradient in zip(shares, gradients.chunk(len(shares), dim=2), strict=True):
        # A level is shared out among its places, so a coarse place weighs more than a fine one.
        evidence = torch.einsum("bfc,bchw->bfhw", gradient.float(), share.float())
        total = total + F.interpolate(evidence, size=size, mode="bilinear", align_corners=False)
    faded = (total - total.amin(dim=(2, 3), keepdim=True)) * _fading(size[0], total)[:, None] * _fading(size[1], total)
    return faded / faded.amax(dim=(2, 3), keepdim=True).clamp_min(torch.finfo(total.dtype).tiny)


def _fading(places: int, like: Tensor) -> Tensor:
    """[places] from near 0 at both ends up to 1 at a RIM from them, along a squared sine."""
    from_edge = torch.arange(places, device=like.device, dtype=like.dtype).add(0.5) / places
    from_edge = torch.minimum(from_edge, 1 - from_edge)
    return torch.sin(torch.pi / 2 * (from_edge / RIM).clamp_max(1)) ** 2


# save_pretrained then writes this module beside the weights; the config's auto_map names both auto classes.
CxrFpnForImageClassification.register_for_auto_class("AutoModelForImageClassification")
