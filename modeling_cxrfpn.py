"""Radiograph and patient in, a logit for each finding out; and where in the radiograph each finding was seen."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from transformers.utils import ModelOutput, logging

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .backbone_cxrfpn import make_backbone
    from .configuration_cxrfpn import CxrFpnConfig
    from .patient_cxrfpn import PATIENT_INPUTS
    from .pooling_cxrfpn import Reading, feature_shares, pool_scores, sum_shares
    from .pretrained_cxrfpn import CxrFpnPreTrainedModel
except ImportError:
    from backbone_cxrfpn import make_backbone
    from configuration_cxrfpn import CxrFpnConfig
    from patient_cxrfpn import PATIENT_INPUTS
    from pooling_cxrfpn import Reading, feature_shares, pool_scores, sum_shares
    from pretrained_cxrfpn import CxrFpnPreTrainedModel

logger = logging.get_logger(__name__)

PYRAMID_STRIDES = {"P3": 8, "P4": 16, "P5": 32}
# Normalised radiographs lie within about 3 of zero; raw pixels of 0..255 do not.
LARGEST_PLAUSIBLE_PIXEL = 20.0


@dataclass
class CxrFpnOutput(ModelOutput):
    """What the network gives.

    Args:
        loss: a scalar, where labels were given.
        logits: [B,F], one a finding, in the order of `config.findings`.
        pooler_output: [B, levels * pyramid_channels], the pooled pyramid: the embedding of a radiograph. None while
            training where scores are pooled.
        hidden_states: the pyramid's levels, the finest first, where they were asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class Pyramid(FeaturePyramidNetwork):
    """torchvision's Feature Pyramid Network from tensors to a tuple of tensors, which torch's backward hooks need.

    Args:
        config: channels, normalisation, and whether all levels are pooled or only the finest one is scored.
        channels: of the features at strides 8, 16 and 32.
    """

    def __init__(self, config: CxrFpnConfig, channels: Sequence[int]):
        norm = nn.BatchNorm2d if config.rectified else None
        super().__init__(list(channels), config.pyramid_channels, norm_layer=norm)
        if config.pooling == "scores":
            del self.layer_blocks[1:]  # layers that nothing reads would get no gradient

    def forward(self, *levels: Tensor) -> tuple[Tensor, ...]:
        """Features at strides 8, 16 and 32 -> as many levels of `pyramid_channels` each, or the finest one alone."""
        if len(self.layer_blocks) == 1:
            merged = self.inner_blocks[-1](levels[-1])
            for block, level in zip(self.inner_blocks[-2::-1], levels[-2::-1], strict=True):
                merged = block(level) + F.interpolate(merged, size=level.shape[-2:], mode="nearest")
            return (self.layer_blocks[0](merged),)
        return tuple(super().forward(OrderedDict(zip(PYRAMID_STRIDES, levels, strict=True))).values())


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


class CxrFpnForImageClassification(CxrFpnPreTrainedModel):
    """DenseNet-121 -> Feature Pyramid Network -> fusion with the patient -> one logit a finding."""

    def __init__(self, config: CxrFpnConfig):
        super().__init__(config)
        self.backbone = make_backbone(config)
        self.pyramid: Pyramid | None = None
        if config.pyramid_channels:
            self.pyramid = Pyramid(config, self.backbone.channels)
            levels_read = 1 if config.pooling == "scores" else len(PYRAMID_STRIDES)
            pooled = levels_read * config.pyramid_channels
        else:
            pooled = self.backbone.channels[-1]
        self.image_branch = nn.Linear(pooled, config.image_features) if config.image_features else None
        self.patient_branch = PatientBranch(config) if config.patient_features else None
        joined = (config.image_features or pooled) + config.patient_features
        hidden = [nn.Linear(joined, config.head_features), nn.ReLU()] if config.head_features else []
        last = nn.Linear(config.head_features or joined, config.num_labels)
        self.head = nn.Sequential(*hidden, nn.Dropout(config.dropout), last)
        self.post_init()

    @property
    def findings(self) -> tuple[str, ...]:
        """The names of the findings, in the order of the logits."""
        return self.config.findings

    def forward(
        self,
        pixel_values: Tensor,
        patient: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        num_items_in_batch: Tensor | int | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> CxrFpnOutput | tuple[Tensor, ...]:
        """Score radiographs.

        Args:
            pixel_values: [B,3,H,W] float, normalised by the image processor.
            patient: [B,3] as `Patient.encode` gives it, NaN for unknown; None where nothing is known.
            labels: [B,F] of 0 and 1 (or soft labels between), in the order of `config.findings`. NaN, or less than 0
                (-1 as in CheXpert, -100 as Trainer leaves labels out), is unknown and does not count.
            num_items_in_batch: labels of all batches that one step adds up, as Trainer counts them: the loss is then
                the sum over known labels divided by it, instead of their mean.
            output_hidden_states: give the pyramid's levels too; by default as the configuration says.
            output_attentions: refused, as there is no attention.
            return_dict: False gives a plain tuple; by default as the configuration says.

        Returns:
            a `CxrFpnOutput`; the loss is binary cross-entropy weighted by `config.pos_weight`.

        Raises:
            ValueError: inputs of other shapes, or attentions.
        """
        self._check_inputs(pixel_values, patient, labels)
        if self.config.output_attentions if output_attentions is None else output_attentions:
            raise ValueError("this network has no attention: leave output_attentions out")
        levels = self.pyramid_levels(pixel_values)
        reading = self.read(levels, self._patient(patient, pixel_values), embed=not self.training)
        shown = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = CxrFpnOutput(
            loss=None if labels is None else self._loss(reading.logits, labels, num_items_in_batch),
            logits=reading.logits,
            pooler_output=reading.pooled,
            hidden_states=tuple(levels) if shown else None,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def finding_maps(
        self, pixel_values: Tensor, patient: Tensor | None = None, findings: Sequence[str] | None = None
    ) -> Tensor:
        """Show where each finding was seen.

        Where scores are pooled, a map is the head's score of each place. Where features are pooled, it is what each
        place adds to the finding's logit: after the pyramid come only pooling, of which every place has its share, and
        a small head, so that this is to first order its share times the head's gradient (for the mean over the places,
        Grad-CAM and HiResCAM are the same).

        Args:
            pixel_values: [B,3,H,W] float, normalised by the image processor.
            patient: [B,3] with NaN for unknown, or None.
            findings: names, each one of `config.findings`; all of them for None.

        Returns:
            [B, len(findings), H/8, W/8] in 0..1, each map scaled to its own peak, for low scores too.

        Raises:
            ValueError: for a name that is no finding.
        """
        return self.forward_with_maps(pixel_values, patient, findings)[1]

    def forward_with_maps(
        self, pixel_values: Tensor, patient: Tensor | None = None, findings: Sequence[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the logits [B,F] and the finding maps of one pass over the radiographs; see `finding_maps`."""
        self._check_inputs(pixel_values, patient, None)
        known = self.findings
        findings = known if findings is None else findings
        if unknown := [name for name in findings if name not in known]:
            raise ValueError(f"no finding is called {', '.join(map(repr, unknown))}; known are {', '.join(known)}")
        chosen = [known.index(name) for name in findings]
        with torch.no_grad():
            levels = self.pyramid_levels(pixel_values)
        # Only maps of pooled features are made of gradients.
        with torch.inference_mode(False), torch.set_grad_enabled(self.config.pooling == "features"):
            levels = [level.detach().clone().requires_grad_() for level in levels]
            reading = self.read(levels, self._patient(patient, pixel_values).clone(), embed=False)

            def gradients(pooled: Tensor) -> Tensor:
                one_by_one = (reading.logits[:, index].sum() for index in chosen)
                return torch.stack(
                    [torch.autograd.grad(logit, pooled, retain_graph=True)[0] for logit in one_by_one], 1
                )

            maps = reading.maps(chosen, gradients)
        return reading.logits.detach(), maps

    def pyramid_levels(self, pixel_values: Tensor) -> list[Tensor]:
        """[B,3,H,W] -> the pyramid's levels, the finest first: [B, pyramid_channels, H/8, W/8], then H/16, H/32.

        Without a pyramid, the last dense block alone: [B, 1024, H/32, W/32]. As the report has it (not rectified), all
        between a dense block and the mean over its places is linear: what stands out in one place is evened out by the
        others, and adding levels top down does nothing that a linear layer on the blocks' own means could not.
        """
        levels = self.backbone(pixel_values)
        if self.pyramid is None:
            return [levels[-1]]
        return [F.relu(level) if self.config.rectified else level for level in self.pyramid(*levels)]

    def read(self, levels: list[Tensor], patient: Tensor, embed: bool = True) -> Reading:
        """Read the logits off the pyramid's levels, by the pooling of the configuration.

        Args:
            levels: as `pyramid_levels` returns them.
            patient: [B,3], NaN for unknown.
            embed: whether to pool the features where only scores need pooling.
        """
        if self.config.pooling == "scores":
            scores = self.score_places(levels, patient)
            logits = pool_scores(scores, self.config.pooling_sharpness)
            return Reading(logits, pooled=self.pool(levels) if embed else None, scores=scores)
        shares = self.shares(levels)
        pooled = sum_shares(shares)
        return Reading(self.classify(pooled, patient), pooled=pooled, shares=shares)

    def pool(self, levels: list[Tensor]) -> Tensor:
        """Pool every channel of every level over its places -> [B, levels * pyramid_channels]."""
        return sum_shares(self.shares(levels))

    def score_places(self, levels: list[Tensor], patient: Tensor) -> Tensor:
        """Let the head score every place of the finest level -> [B,F,h,w], where `config.pooling` is "scores"."""
        finest = levels[0].to(self._head_dtype)
        scores = self.classify(finest.flatten(2).transpose(1, 2), patient)
        return scores.transpose(1, 2).unflatten(2, finest.shape[-2:])

    def shares(self, levels: list[Tensor]) -> list[Tensor]:
        """Return what each place of each level adds to its pooled channel; of the levels' shapes."""
        return feature_shares([level.to(self._head_dtype) for level in levels], self.config.pooling_sharpness)

    @property
    def _head_dtype(self) -> torch.dtype:
        """The precision that the head takes; quantised layers, which have no parameters, take single precision."""
        return next((weight.dtype for weight in self.head.parameters()), torch.float32)

    def _patient(self, patient: Tensor | None, pixel_values: Tensor) -> Tensor:
        dtype = self._head_dtype
        if patient is None:
            return pixel_values.new_full((len(pixel_values), len(PATIENT_INPUTS)), math.nan, dtype=dtype)
        return patient.to(device=pixel_values.device, dtype=dtype)

    def classify(self, pooled: Tensor, patient: Tensor) -> Tensor:
        """Read pooled features [B,C], or those of many places [B,P,C], and the patient [B,3] -> [B,F] or [B,P,F]."""
        # Never in autocast's bf16, whose 8 bits would leave a few hundred different scores, and many a tie.
        with torch.autocast(pooled.device.type, enabled=False):
            features = pooled if self.image_branch is None else F.relu(self.image_branch(pooled))
            if self.patient_branch is not None:
                known = self.patient_branch(patient)
                if features.ndim == 3:
                    known = known[:, None].expand(-1, features.shape[1], -1)
                features = torch.cat([features, known], dim=-1)
            return self.head(features)

    def _loss(self, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        weight = self.config.pos_weight
        pos_weight = None if weight is None else torch.tensor(weight, device=logits.device, dtype=torch.float32)
        known = labels >= 0  # NaN is not
        losses = F.binary_cross_entropy_with_logits(
            logits.float(), labels.float().masked_fill(~known, 0.0), pos_weight=pos_weight, reduction="none"
        )
        count = known.sum().clamp_min(1) if num_items_in_batch is None else num_items_in_batch
        return losses.masked_fill(~known, 0.0).sum() / count

    def _check_inputs(self, pixel_values: Tensor, patient: Tensor | None, labels: Tensor | None) -> None:
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            raise ValueError(f"pixel_values must be [batch, 3, height, width], got {list(pixel_values.shape)}")
        if not pixel_values.is_floating_point():
            raise ValueError(f"pixel_values are {pixel_values.dtype}, not normalised: use the image processor")
        for name, value, width in (
            ("patient", patient, len(PATIENT_INPUTS)),
            ("labels", labels, self.config.num_labels),
        ):
            if value is not None and value.shape != (pixel_values.shape[0], width):
                raise ValueError(f"{name} must be [{pixel_values.shape[0]}, {width}], got {list(value.shape)}")
        # Raw pixels give nearly the same answer for every image, silently; looking costs a wait on a GPU, so not there.
        is_cheap = pixel_values.device.type == "cpu" and not (self.training or torch.compiler.is_compiling())
        if is_cheap and pixel_values.abs().amax() > LARGEST_PLAUSIBLE_PIXEL:
            logger.warning_once("pixel_values look like raw pixels (over 20): pass images through the processor")


# save_pretrained then writes this module beside the weights; the config's auto_map names both auto classes.
CxrFpnForImageClassification.register_for_auto_class("AutoModelForImageClassification")
