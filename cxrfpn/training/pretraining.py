"""The objective of a head start: what a chest looks like, learnt from radiographs that nobody has labelled.

Half of each radiograph is hidden, in squares, and the pyramid paints it in (masked modelling: He et al., "Masked
Autoencoders Are Scalable Vision Learners", 2022, here with a convolutional network, which simply sees grey in place of
what is hidden). From what is left, age, view position and sex are read where they are known: labels that come free
with every DICOM, and that make the pooled features look at the whole chest. No finding is ever looked at.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from torch import Tensor, nn

from cxrfpn.training.recipe import Cycle, Recipe
from cxrfpn.training.run import Run
from cxrfpn.training.run_folder import save_network
from modeling_cxrfpn import PYRAMID_STRIDES, CxrFpnForImageClassification
from patient_cxrfpn import PATIENT_INPUTS

# Squares of 16 pixels are hidden, 2 x 2 places of the finest level: at 64 pixels a quarter of a chest's width.
HIDDEN_SQUARE, HIDDEN_SHARE = 16, 0.5
# Reading the patient counts for less than painting, whose error has many more places to learn from.
PATIENT_SHARE = 0.5
# Ages of the NIH set: about 47 +- 17 years; the error is then of the size of the others'.
AGE_MEAN, AGE_SPREAD = 0.47, 0.17


@dataclass(frozen=True)
class PretrainingJudgement:
    """Mean losses over the validation images: in all, of what was painted, of each patient input."""

    loss: float
    painted: float
    patient: tuple[float, ...]

    def figures(self) -> dict[str, float]:
        """painted: squared error of the hidden grey levels, where 1 is that of knowing nothing but the image's mean."""
        read = {f"{name}_loss": value for name, value in zip(PATIENT_INPUTS, self.patient, strict=True)}
        return {"validation_loss": self.loss, "painted_error": self.painted, **read}


class MaskedPretraining(nn.Module):
    """The network without its head, with a painter on the finest level and a reader on the pooled features."""

    def __init__(self, network: CxrFpnForImageClassification):
        super().__init__()
        self.network = network
        for unused in filter(None, (network.image_branch, network.patient_branch, network.head)):
            unused.requires_grad_(False)
        channels, self.stride = network.config.pyramid_channels, PYRAMID_STRIDES["P3"]
        self.painter = nn.Conv2d(channels, self.stride**2, kernel_size=1)
        self.reader = nn.Linear(len(PYRAMID_STRIDES) * channels, len(PATIENT_INPUTS))

    def forward(self, pixel_values: Tensor, patients: Tensor) -> Tensor:
        """[B,3,H,W] normalised, sides of a multiple of 16, and [B,3] with NaN for unknown -> losses [4].

        The squared error of what was hidden, in units of each image's own variance, then the losses of age (smooth L1),
        view position and sex (cross-entropy), each the mean over the patients of whom it is known.
        """
        hidden = self._hide(pixel_values)
        levels = self.network.pyramid_levels(pixel_values.masked_fill(hidden, 0.0))
        painted = self.painter(levels[0]).float()
        wanted = F.pixel_unshuffle(_standardised(pixel_values[:, :1].float()), self.stride)
        where = F.pixel_unshuffle(hidden.float(), self.stride)
        error = ((painted - wanted) ** 2 * where).sum() / where.sum().clamp_min(1)
        return torch.cat([error[None], self._patient_losses(self.network.pool(levels).float(), patients)])

    def _hide(self, pixel_values: Tensor) -> Tensor:
        count, _, height, width = pixel_values.shape
        squares = torch.rand(count, 1, height // HIDDEN_SQUARE, width // HIDDEN_SQUARE, device=pixel_values.device)
        return F.interpolate((squares < HIDDEN_SHARE).float(), size=(height, width)).bool()

    def _patient_losses(self, pooled: Tensor, patients: Tensor) -> Tensor:
        with torch.autocast(pooled.device.type, enabled=False):
            read = self.reader(pooled)
        known = ~patients.isnan()
        patients = patients.masked_fill(~known, 0.0)
        age = F.smooth_l1_loss(read[:, 0], (patients[:, 0] - AGE_MEAN) / AGE_SPREAD, reduction="none")
        others = F.binary_cross_entropy_with_logits(read[:, 1:], patients[:, 1:], reduction="none")
        losses = torch.cat([age[:, None], others], dim=1) * known
        return losses.sum(dim=0) / known.sum(dim=0).clamp_min(1)


class PretrainingObjective:
    """Painting in what is hidden, and reading the patient; what is kept is a package without thresholds."""

    def wrap(self, network: CxrFpnForImageClassification, recipe: Recipe) -> nn.Module:
        return MaskedPretraining(network)

    def enter(self, run: Run, cycle: Cycle) -> None:
        """Every cycle is alike."""

    def loss(self, model: nn.Module, pixel_values: Tensor, patients: Tensor, labels: Tensor) -> Tensor:
        return _total(model(pixel_values, patients))

    def judge(self, run: Run, cycle: Cycle) -> PretrainingJudgement:
        sums, images = torch.zeros(1 + len(PATIENT_INPUTS)), 0
        with torch.inference_mode(), run.accelerator.autocast(), torch.random.fork_rng():
            for batch, pixel_values, patients in run.judging_batches(cycle):
                torch.manual_seed(batch.first)  # every epoch is judged by the same squares
                sums += len(batch) * run.judged(pixel_values, patients).cpu()
                images += len(batch)
        shares = gather_object([(sums, images)])
        means = sum(share for share, _ in shares) / sum(count for _, count in shares)
        return PretrainingJudgement(float(_total(means)), float(means[0]), tuple(means[1:].tolist()))

    def rank(self, run: Run, figures: dict[str, float]) -> float:
        return -figures["validation_loss"]

    def keep(self, run: Run, cycle: Cycle, judgement: PretrainingJudgement) -> None:
        save_network(run.judged.network, run.folder, cycle.size_of_use, run.feed.shards.size)

    def finish(self, run: Run) -> None:
        """There are no findings to score."""


def _total(losses: Tensor) -> Tensor:
    return losses[0] + PATIENT_SHARE * losses[1:].mean()


def _standardised(grey: Tensor) -> Tensor:
    spread, mean = torch.std_mean(grey, dim=(2, 3), keepdim=True)
    return (grey - mean) / spread.clamp_min(1e-3)
