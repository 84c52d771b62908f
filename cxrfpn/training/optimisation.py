"""What moves the weights: the optimizer, the schedule of its learning rate, the average of the weights."""

import copy
import math
from typing import NotRequired, TypedDict

import torch
from torch import nn

from cxrfpn.training.recipe import Cycle, Recipe

# The report halves the learning rate "when the validation loss has not improved for 2 epochs". We read that as the
# patience of torch's ReduceLROnPlateau: after the third epoch in a row without a better loss.
PLATEAU_EPOCHS, PLATEAU_FACTOR = 2, 0.5


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Make Adam or AdamW, without weight decay for biases and BatchNorm, which have no scale to shrink."""
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.learning_rate)


class ScheduleState(TypedDict):
    """Where a schedule stands, as checkpoints keep it."""

    factor: float
    best: float
    waited: int
    pos_weight: NotRequired[dict[str, float]]


class Schedule:
    """The learning rate: warm-up, then cosine to zero, step by step; or halved when validation stands still.

    Args:
        total: optimizer steps in the whole run.
    """

    def __init__(self, recipe: Recipe, optimizer: torch.optim.Optimizer, total: int) -> None:
        self.recipe, self.optimizer, self.total = recipe, optimizer, total
        self.factor, self.best, self.waited = 1.0, math.inf, 0
        self.pos_weight: dict[str, float] = {}

    def before_step(self, step: int) -> float:
        """Set and return the learning rate of step 0..total-1."""
        rate = self.recipe.learning_rate * self.factor * self._share(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def after_epoch(self, validation_loss: float, cycle: Cycle) -> None:
        """Note an epoch's validation loss; only the plateau schedule uses it.

        A cycle that changes the weights of the loss changes its scale: its losses are not compared with earlier ones.
        """
        if self.recipe.schedule != "plateau":
            return
        if cycle.pos_weight != self.pos_weight:
            self.best, self.waited, self.pos_weight = math.inf, 0, dict(cycle.pos_weight)
        if validation_loss < self.best:
            self.best, self.waited = validation_loss, 0
            return
        self.waited += 1
        if self.waited > PLATEAU_EPOCHS:
            self.factor, self.waited = self.factor * PLATEAU_FACTOR, 0

    def state(self) -> ScheduleState:
        """Return what `load_state` restores."""
        return {"factor": self.factor, "best": self.best, "waited": self.waited, "pos_weight": self.pos_weight}

    def load_state(self, state: ScheduleState) -> None:
        """Restore a state that `state` returned."""
        self.factor, self.best, self.waited = state["factor"], state["best"], state["waited"]
        self.pos_weight = dict(state.get("pos_weight", {}))

    def _share(self, step: int) -> float:
        warmup = self.recipe.warmup * self.total
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.recipe.schedule == "plateau":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(self.total - warmup, 1)))


class WeightAverage:
    """A copy of the model whose weights follow it by an exponential moving average, BatchNorm's statistics as well.

    The decay grows with the steps, (1 + n) / (10 + n) up to the recipe's, so that the first weights are forgotten fast.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.model = decay, copy.deepcopy(model).eval().requires_grad_(False)
        self._pairs(model)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the model after optimizer step 0, 1, 2..."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._mine, self._theirs, 1 - decay)

    def _pairs(self, model: nn.Module) -> None:
        theirs, mine = model.state_dict(), self.model.state_dict()
        floating = [name for name, value in mine.items() if value.is_floating_point()]
        self._mine, self._theirs = [mine[name] for name in floating], [theirs[name] for name in floating]


class RunningStatistics:
    """BatchNorm's running statistics when a step is computed in several passes, by one process or by many.

    A pass normalises by its own images alone (on every device, as PyTorch's BatchNorm does without synchronisation).
    The running statistics move once a step, by the mean of what each pass would have moved them: so that two processes
    with n images each, and one process with two passes of n, end a step with the same network.
    """

    def __init__(self, model: nn.Module) -> None:
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self.buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]

    @torch.no_grad()
    def start_step(self) -> None:
        """Prepare for the first pass of a step."""
        self.start = torch._foreach_mul(self.buffers, 1.0)
        self.moved = torch._foreach_mul(self.buffers, 0.0)

    @torch.no_grad()
    def after_pass(self, share: float) -> None:
        """Note a pass over this share (0..1) of the step's images."""
        moved = torch._foreach_sub(self.buffers, self.start)
        torch._foreach_add_(self.moved, moved, alpha=share)
        self.rewind()

    @torch.no_grad()
    def rewind(self) -> None:
        """Forget a pass."""
        torch._foreach_copy_(self.buffers, self.start)

    @torch.no_grad()
    def end_step(self) -> None:
        """Move the statistics after the last pass of a step."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            flat = torch.cat([moved.flatten() for moved in self.moved])
            torch.distributed.all_reduce(flat)
            pieces = flat.split([moved.numel() for moved in self.moved])
            self.moved = [piece.view_as(moved) for piece, moved in zip(pieces, self.moved, strict=True)]
        torch._foreach_add_(self.buffers, self.moved)
