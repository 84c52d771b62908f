"""The objective that the model exists for: the 14 findings, judged by every validation image once."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor, nn

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.metrics import measure
from cxrfpn.training.optimisation import compute_loss, loss_weights
from cxrfpn.training.recipe import Cycle
from cxrfpn.training.run import Run
from cxrfpn.training.run_folder import save_package, score_test_split
from cxrfpn.training.teachers import Teachers
from modeling_cxrfpn import CxrFpnForImageClassification

# The report's curves call a finding at a score of 0.5; its thresholds come after training.
EPOCH_THRESHOLDS = dict.fromkeys(FINDINGS, 0.5)


@dataclass(frozen=True)
class Judgement:
    """labels [N,14] of 0 and 1, scores [N,14] in 0..1, and the mean loss, all in the order of the shards."""

    labels: NDArray[np.float32]
    scores: NDArray[np.float32]
    loss: float

    def figures(self) -> dict[str, float]:
        """The report's figures of an epoch: means over findings, calls at a score of 0.5."""
        measured = measure(self.labels, self.scores, EPOCH_THRESHOLDS)
        return {
            "validation_loss": self.loss,
            "precision": measured["macro"]["precision"],
            "recall": measured["macro"]["recall"],
            "micro_f1": measured["micro"]["f1"],
            "macro_f1": measured["macro"]["f1"],
            "mean_auroc": measured["mean_auroc"],
        }


class FindingsObjective:
    """Weighted cross-entropy over the 14 findings; what is kept is a package with its thresholds."""

    def wrap(self, network: CxrFpnForImageClassification) -> nn.Module:
        return network

    def enter(self, run: Run, cycle: Cycle) -> None:
        self.settings = run.recipe.loss
        shown = torch.from_numpy(run.train_loader.epoch_labels())
        weights = loss_weights(self.settings, shown, cycle)
        self.pos_weight = torch.tensor(weights, device=run.accelerator.device)
        self.teachers = Teachers(self.settings.teachers, run.accelerator) if self.settings.teachers else None

    def loss(self, model: nn.Module, pixel_values: Tensor, patients: Tensor, labels: Tensor) -> Tensor:
        logits = model(pixel_values, patients).logits
        loss = compute_loss(logits, labels, self.settings, self.pos_weight)
        if self.teachers is None:
            return loss
        # Unweighted: the teachers' scores have the weights of their own training in them.
        taught = F.binary_cross_entropy_with_logits(logits.float(), self.teachers.scores(pixel_values, patients))
        return torch.lerp(loss, taught, self.settings.teacher_share)

    def judge(self, run: Run, cycle: Cycle) -> Judgement:
        accelerator, network = run.accelerator, run.judged
        shares: list[tuple[int, NDArray, NDArray]] = []
        with torch.inference_mode(), accelerator.autocast():
            for batch, pixel_values, patients in run.judging_batches(cycle):
                logits = network(pixel_values, patients).logits.float().cpu().numpy()
                shares.append((batch.first, logits, batch.labels.numpy()))
        shares = sorted(gather_object(shares), key=lambda share: share[0])
        logits, labels = (np.concatenate([share[index] for share in shares]) for index in (1, 2))
        loss = compute_loss(torch.from_numpy(logits), torch.from_numpy(labels), self.settings, self.pos_weight.cpu())
        return Judgement(labels, torch.from_numpy(logits).sigmoid().numpy(), float(loss))

    def rank(self, run: Run, figures: dict[str, float]) -> float:
        return figures[run.recipe.choose_by]

    def keep(self, run: Run, cycle: Cycle, judgement: Judgement) -> None:
        save_package(run.judged, run.folder, run.recipe, cycle.size_of_use, judgement.labels, judgement.scores)

    def finish(self, run: Run) -> None:
        score_test_split(run)
