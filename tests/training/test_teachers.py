"""A network learns what its teachers say, and the teachers learn nothing."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from cxrfpn.training import loop
from cxrfpn.training.backbone import BackboneError
from cxrfpn.training.findings import FindingsObjective
from cxrfpn.training.recipe import RecipeError, read_recipe
from cxrfpn.training.teachers import Teachers
from modeling_cxrfpn import CxrFpnForImageClassification


@pytest.fixture
def packages(tiny_config, tmp_path) -> list[str]:
    """Two networks that disagree: of different draws, and with other findings before their eyes."""
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = CxrFpnForImageClassification(tiny_config())
        network.head[-1].bias.data = torch.linspace(-3, 3, 14).roll(7 * seed + 3)
        network.save_pretrained(tmp_path / str(seed))
    return [str(tmp_path / "0"), str(tmp_path / "1")]


def mean_score(packages, pixels, patients) -> np.ndarray:
    logits = [CxrFpnForImageClassification.from_pretrained(each)(pixels, patients).logits for each in packages]
    return np.mean([1 / (1 + np.exp(-each.detach().double().numpy())) for each in logits], axis=0)


def test_teachers_say_the_mean_of_their_scores(packages, radiographs, patients):
    expected = mean_score(packages, radiographs, patients)
    scores = Teachers(packages, Accelerator(cpu=True)).scores(radiographs, patients)
    assert scores.numpy() == pytest.approx(expected, abs=1e-6) and not scores.requires_grad
    assert np.abs(expected - mean_score(packages[:1], radiographs, patients)).max() > 1e-3  # both of them count


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_is_shared_between_labels_and_teachers(write_recipe, packages, tmp_path, share, radiographs, patients):
    settings = {"pos_weight": "none", "teachers": packages, "teacher_share": share}
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", loss=settings))
    run = loop.begin(recipe, FindingsObjective(), tmp_path / "run", resume=False)
    run.objective.enter(run, recipe.cycles[0])
    labels = (torch.arange(28).view(2, 14) % 3 == 0).float()
    loss = run.objective.loss(run.trained.eval(), radiographs, patients, labels)
    score = run.trained(radiographs, patients).logits.sigmoid().detach().double().numpy()

    def entropy(wanted: np.ndarray) -> float:
        return -(wanted * np.log(score) + (1 - wanted) * np.log(1 - score)).mean()

    expected = (1 - share) * entropy(labels.numpy()) + share * entropy(mean_score(packages, radiographs, patients))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_student_comes_to_score_as_its_teachers(write_recipe, packages, tmp_path):
    settings = {"teachers": packages, "teacher_share": 1.0}
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", loss=settings, learning_rate=0.1, patient_dropout=0.0))
    run = loop.begin(recipe, FindingsObjective(), tmp_path / "run", resume=False)
    run.objective.enter(run, recipe.cycles[0])
    _, pixels, patients = next(run.judging_batches(recipe.cycles[0]))
    wanted, apart = mean_score(packages, pixels, patients), []
    for epochs in (0, 2):
        for _ in range(epochs):
            loop.train_epoch(run, recipe.cycles[0], lambda: False)
            run.place.epoch, run.place.step = run.place.epoch + 1, 0
        with torch.no_grad():
            scores = run.trained.eval()(pixels, patients).logits.sigmoid().numpy()
        apart.append(np.abs(scores - wanted).mean())
    assert apart[1] < apart[0] / 3


def test_a_teacher_that_is_not_there_and_a_share_beyond_1_are_one_line(write_recipe, tmp_path):
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", loss={"teachers": [str(tmp_path / "nobody")]}))
    with pytest.raises(BackboneError, match="nobody: is neither a file nor a package") as caught:
        loop.train(recipe, tmp_path / "run")
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match="loss: teacher_share must lie in 0 to 1"):
        read_recipe(write_recipe(tmp_path / "recipe.yaml", loss={"teacher_share": 1.5}))
