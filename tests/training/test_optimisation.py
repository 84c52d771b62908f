"""The loss, the schedule, the average and BatchNorm's statistics, against formulas written out here."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from cxrfpn.training.loss import compute_loss, finding_weights, loss_weights
from cxrfpn.training.optimisation import (
    RunningStatistics,
    Schedule,
    WeightAverage,
    make_optimizer,
)
from cxrfpn.training.recipe import Cycle, Loss, Recipe

CYCLES = (Cycle(1, 64),)


def test_weights_are_the_rule_and_a_cycle_may_override_them():
    labels = torch.zeros(100, 14)
    labels[:10, 0], labels[:50, 1] = 1, 1
    weights = finding_weights(labels)
    assert weights[:3] == pytest.approx([math.log(11), math.log(3), math.log(101)])
    cycle = Cycle(1, 64, pos_weight={"Cardiomegaly": 4.5})
    assert loss_weights(Loss(), labels, cycle)[:2] == pytest.approx([math.log(11), 4.5])
    assert loss_weights(Loss(pos_weight="none"), labels, cycle)[:2] == [1.0, 4.5]


def test_an_unknown_label_weighs_nothing_and_is_counted_nowhere():
    labels = torch.zeros(100, 14)
    labels[:10, 0] = 1
    labels[50:, 0] = torch.nan
    assert finding_weights(labels)[:2] == pytest.approx([math.log(1 + 50 / 10), math.log(101)])
    logits = torch.linspace(-2, 2, 28).view(2, 14)
    known = torch.tensor([[1.0, 0.0] * 7, [0.0, 1.0] * 7])
    masked = known.clone()
    masked[1] = torch.nan
    for settings in (Loss(), Loss(negative_focus=2.0)):
        whole = compute_loss(logits[:1], known[:1], settings, torch.ones(14))
        # An image keeps its weight among two images, however little is known of the other.
        assert compute_loss(logits, masked, settings, torch.ones(14)).item() == pytest.approx(whole.item() / 2)
    gradient = torch.autograd.grad(compute_loss(logits.requires_grad_(), masked, Loss(), torch.ones(14)), logits)[0]
    assert gradient[1].eq(0).all() and gradient[0].ne(0).all()


def test_the_loss_is_weighted_cross_entropy_with_smoothed_labels():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(5, 14, generator=generator), torch.randint(0, 2, (5, 14), generator=generator).float()
    weights = torch.rand(14, generator=generator) + 0.5
    total = 0.0
    for row in range(5):
        for finding in range(14):
            p = 1 / (1 + math.exp(-logits[row, finding]))
            target = 0.9 if labels[row, finding] else 0.1
            total -= weights[finding] * target * math.log(p) + (1 - target) * math.log(1 - p)
    loss = compute_loss(logits, labels, Loss(label_smoothing=0.1), weights)
    assert loss.item() == pytest.approx(float(total) / 70, rel=1e-5)


def test_the_asymmetric_loss_forgets_negatives_that_are_told_apart():
    labels, weights = torch.zeros(1, 14), torch.ones(14)
    focused = Loss(negative_focus=2.0)
    assert float(compute_loss(torch.full((1, 14), -4.0), labels, focused, weights)) == 0.0  # under the margin
    p = 1 / (1 + math.exp(-1.0)) - 0.05
    expected = -(p**2) * math.log(1 - p)
    assert float(compute_loss(torch.ones(1, 14), labels, focused, weights)) == pytest.approx(expected, rel=1e-5)
    plain = compute_loss(torch.ones(1, 14), labels + 1, Loss(), weights)
    assert float(compute_loss(torch.ones(1, 14), labels + 1, focused, weights)) == pytest.approx(float(plain), rel=1e-5)


def recipe(**changes: object) -> Recipe:
    return Recipe(source="phantom:1", cycles=CYCLES, learning_rate=1.0, **changes)


def test_cosine_warms_up_and_ends_at_zero():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Schedule(recipe(warmup=0.1), optimizer, 100)
    rates = [schedule.before_step(step) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11) and rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5) and rates[99] == pytest.approx(0.0, abs=1e-3)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == rates[-1]


def test_plateau_halves_as_torch_does():
    losses = [1.0, 0.9, 0.95, 0.95, 0.95, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0)
    expected = []
    for loss in losses:
        reference.step(loss)
        expected.append(optimizer.param_groups[0]["lr"])
    schedule = Schedule(recipe(schedule="plateau"), optimizer, 100)
    rates = []
    for loss in losses:
        schedule.after_epoch(loss, CYCLES[0])
        other = Schedule(recipe(schedule="plateau"), optimizer, 100)
        other.load_state(schedule.state())  # as after a resume
        schedule = other
        rates.append(schedule.before_step(0))
    assert rates == expected and rates[-1] < 0.5


def test_a_change_of_the_losss_weights_is_no_plateau():
    """The report's third cycle weighs three findings up: its losses are higher, although the network is no worse."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, heavier = (
        Schedule(recipe(schedule="plateau"), optimizer, 100),
        Cycle(1, 64, pos_weight={"Pneumonia": 4.5}),
    )
    for loss, cycle in [(0.5, CYCLES[0])] + [(0.9 - 0.01 * step, heavier) for step in range(6)]:
        schedule.after_epoch(loss, cycle)
    assert schedule.before_step(0) == 1.0
    for _ in range(3):
        schedule.after_epoch(0.85, heavier)
    assert schedule.before_step(0) == 0.5  # what stands still is still seen


def test_weight_decay_leaves_biases_and_norms_alone():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    groups = make_optimizer(recipe(weight_decay=0.1), model).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.1), (3, 0.0)]


def test_the_average_follows_weights_and_statistics():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(model, 0.5)
    expected = copy.deepcopy(model.state_dict())
    for step in range(20):
        with torch.no_grad():
            for value in model.state_dict().values():
                value += 1
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in average.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name])


def test_statistics_of_several_passes_are_the_mean_of_what_each_would_have_made():
    norm = nn.BatchNorm1d(3)
    images = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    parts = [images[:4], images[4:]]
    expected = norm.running_mean.clone()
    for part in parts:
        expected += len(part) / 10 * 0.1 * (part.mean(dim=0) - norm.running_mean)
    statistics = RunningStatistics(norm)
    statistics.start_step()
    for part in parts:
        norm(part)
        statistics.after_pass(len(part) / 10)
    statistics.end_step()
    torch.testing.assert_close(norm.running_mean, expected)


def test_one_pass_is_plain_batchnorm():
    ours, plain = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 3))).float()
    statistics = RunningStatistics(ours)
    for _ in range(3):
        statistics.start_step()
        ours(images)
        statistics.after_pass(1.0)
        statistics.end_step()
        plain(images)
    torch.testing.assert_close(ours.running_var, plain.running_var)
