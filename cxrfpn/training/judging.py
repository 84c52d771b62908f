"""What a network makes of a split while it is trained: every image once, over all processes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.metrics import measure
from cxrfpn.training.feeding import judging_batches
from cxrfpn.training.optimisation import compute_loss
from cxrfpn.training.run import Run

# The report's curves call a finding at a score of 0.5; its thresholds come after training.
EPOCH_THRESHOLDS = dict.fromkeys(FINDINGS, 0.5)


@dataclass(frozen=True)
class Judgement:
    """labels [N,14] of 0 and 1, scores [N,14] in 0..1, and the mean loss, all in the order of the shards."""

    labels: NDArray[np.float32]
    scores: NDArray[np.float32]
    loss: float

    def figures(self) -> dict[str, Any]:
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


def judge(run: Run, split: str, size: int, pos_weight: torch.Tensor) -> Judgement:
    """Let the judged network score a split, in eval mode, the processes sharing the work."""
    accelerator, network = run.accelerator, run.judged
    loader = run.feed.loader(run.recipe, split, accelerator.process_index, accelerator.num_processes)
    training = network.training
    network.eval()
    shares: list[tuple[int, NDArray, NDArray]] = []
    with torch.inference_mode(), accelerator.autocast():
        for batch, pixel_values, patients in judging_batches(loader, size, accelerator.device):
            logits = network(pixel_values, patients).logits.float().cpu().numpy()
            shares.append((batch.first, logits, batch.labels.numpy()))
    network.train(training)
    shares = sorted(gather_object(shares), key=lambda share: share[0])
    logits, labels = (np.concatenate([share[index] for share in shares]) for index in (1, 2))
    loss = compute_loss(torch.from_numpy(logits), torch.from_numpy(labels), run.recipe.loss, pos_weight.cpu())
    return Judgement(labels, torch.from_numpy(logits).sigmoid().numpy(), float(loss))
