"""The objective that the model exists for: the 14 findings, judged by every validation image once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor, nn

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.findings_metric import compute_figures
from cxrfpn.evaluation.metrics import auroc_by_finding
from cxrfpn.training.optimisation import compute_loss, loss_weights
from cxrfpn.training.recipe import Cycle, Recipe
from cxrfpn.training.run import Run
from cxrfpn.training.run_folder import as_kept, save_package, score_test_split
from cxrfpn.training.teachers import Student, Teachers, feature_loss
from modeling_cxrfpn import CxrFpnForImageClassification

# A file with as many pixels on its shorter side shows all that a network sees at the sizes that are trained here.
SEEN_SIDE = 200


@dataclass(frozen=True)
class Judgement:
    """labels [N,F] of 0 and 1, scores [N,F] in 0..1, source_sides [N] in pixels, in the order of the shards; loss."""

    labels: NDArray[np.float32]
    scores: NDArray[np.float32]
    source_sides: NDArray[np.int32]
    loss: float
    findings: tuple[str, ...] = FINDINGS

    def figures(self) -> dict[str, float]:
        """Return the report's figures of an epoch: means over findings, calls at a score of 0.5."""
        measured = compute_figures(self.labels, self.scores, findings=self.findings)
        return {
            "validation_loss": self.loss,
            "precision": measured["macro"]["precision"],
            "recall": measured["macro"]["recall"],
            "micro_f1": measured["micro"]["f1"],
            "macro_f1": measured["macro"]["f1"],
            "mean_auroc": measured["mean_auroc"],
            "auroc_within_sharpness": auroc_within_sharpness(
                self.labels, self.scores, self.source_sides, self.findings
            ),
        }


def auroc_within_sharpness(
    labels: NDArray, scores: NDArray, source_sides: NDArray, findings: Sequence[str] = FINDINGS
) -> float:
    """Return the mean AUROC within sharp images and within blurred ones, averaged.

    Where sharpness goes with the labels, a pooled figure rewards a model that reads sharpness; this one does not. A
    group without a finding that is both present and absent in it is left out.
    """
    sharp = source_sides >= SEEN_SIDE
    means = []
    for group in (sharp, ~sharp):
        areas = auroc_by_finding(labels[group], scores[group], findings).values() if group.any() else ()
        if known := [area for area in areas if area is not None]:
            means.append(np.mean(known))
    return float(np.mean(means))


class FindingsObjective:
    """Weighted cross-entropy over the 14 findings; what is kept is a package with its thresholds."""

    def wrap(self, network: CxrFpnForImageClassification, recipe: Recipe) -> nn.Module:
        self.settings = recipe.loss
        self.teachers = Teachers(recipe.loss.teachers) if recipe.loss.teachers else None
        return Student(network, self.teachers) if recipe.loss.feature_weight else network

    def enter(self, run: Run, cycle: Cycle) -> None:
        shown = torch.from_numpy(run.train_loader.epoch_labels())
        weights = loss_weights(self.settings, shown, cycle, run.recipe.findings)
        self.pos_weight = torch.tensor(weights, device=run.accelerator.device)
        if self.teachers is not None:
            self.teachers.prepare(run.accelerator)

    def loss(self, model: nn.Module, pixel_values: Tensor, patients: Tensor, labels: Tensor) -> Tensor:
        output = model(pixel_values, patients)
        logits, projected = output if self.settings.feature_weight else (output.logits, [])
        loss = compute_loss(logits, labels, self.settings, self.pos_weight)
        if self.teachers is None:
            return loss
        scores, features = self.teachers.look(pixel_values, patients)
        # Unweighted: the teachers' scores have the weights of their own training in them.
        taught = F.binary_cross_entropy_with_logits(logits.float(), scores)
        loss = torch.lerp(loss, taught, self.settings.teacher_share)
        return loss + self.settings.feature_weight * feature_loss(projected, features) if projected else loss

    def judge(self, run: Run, cycle: Cycle) -> Judgement:
        accelerator, network = run.accelerator, as_kept(_network(run.judged))
        shares: list[tuple[int, NDArray, NDArray, NDArray]] = []
        with torch.inference_mode(), accelerator.autocast():
            for batch, pixel_values, patients in run.judging_batches(cycle):
                logits = network(pixel_values, patients).logits.float().cpu().numpy()
                shares.append((batch.first, logits, batch.labels.numpy(), batch.source_sides.numpy()))
        shares = sorted(gather_object(shares), key=lambda share: share[0])
        logits, labels, source_sides = (np.concatenate([share[index] for share in shares]) for index in (1, 2, 3))
        loss = compute_loss(torch.from_numpy(logits), torch.from_numpy(labels), self.settings, self.pos_weight.cpu())
        scores = torch.from_numpy(logits).sigmoid().numpy()
        return Judgement(labels, scores, source_sides, float(loss), run.recipe.findings)

    def rank(self, run: Run, figures: dict[str, float]) -> float:
        return figures[run.recipe.choose_by]

    def keep(self, run: Run, cycle: Cycle, judgement: Judgement) -> None:
        network, sizes = _network(run.judged), (cycle.size_of_use, run.feed.shards.size)
        rows = run.feed.validation_rows(run.recipe)
        save_package(network, run.folder, run.recipe, *sizes, judgement.labels, judgement.scores, rows)

    def finish(self, run: Run) -> None:
        score_test_split(run)


def _network(trained: nn.Module) -> CxrFpnForImageClassification:
    """The network within what is trained."""
    return trained.network if isinstance(trained, Student) else trained
