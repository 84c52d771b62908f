"""A network learns its teachers' scores and features; the teachers do not change."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from cxrfpn.data.preparing import prepare
from cxrfpn.data.shards import PreparedShards
from cxrfpn.data.sources import open_source
from cxrfpn.training import loop
from cxrfpn.training.recipe import RecipeError, read_recipe
from cxrfpn.training.teachers import Teachers, feature_loss
from modeling_cxrfpn import CxrFpnForImageClassification
from thresholds_cxrfpn import PackageError


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


def test_teachers_give_the_mean_of_their_scores(packages, radiographs, patients):
    expected = mean_score(packages, radiographs, patients)
    teachers = Teachers(packages)
    teachers.prepare(Accelerator(cpu=True))
    scores, features = teachers.score(radiographs, patients)
    assert scores.numpy() == pytest.approx(expected, abs=1e-6) and not scores.requires_grad
    assert np.abs(expected - mean_score(packages[:1], radiographs, patients)).max() > 1e-3  # both of them count
    wanted = [CxrFpnForImageClassification.from_pretrained(each).backbone(radiographs) for each in packages]
    torch.testing.assert_close([list(levels) for levels in wanted], features, rtol=1e-4, atol=1e-5)


def test_a_teacher_sees_the_images_at_its_own_size(packages, tiny_config, tmp_path, radiographs, patients):
    """The first teacher was trained at 64 pixels, the student's images have 96: it gets them resized."""
    CxrFpnForImageClassification(tiny_config(image_size=64)).save_pretrained(tmp_path / "small")
    teachers = Teachers([str(tmp_path / "small")])
    teachers.prepare(Accelerator(cpu=True))
    large = torch.nn.functional.interpolate(radiographs, size=(96, 96), mode="bilinear")
    _, features = teachers.score(large, patients)
    assert [level.shape[-1] for level in features[0]] == [8, 4, 2]


def test_the_feature_loss_is_the_mean_of_one_minus_cosine():
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4, 4)
    own, wanted = ours.numpy().astype(float), theirs.numpy().astype(float)

    def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))

    expected = 1 - (cosine(own, wanted).mean() + cosine(own.mean((2, 3)), wanted.mean((2, 3))).mean()) / 2
    assert feature_loss([[ours]], [[theirs]]).item() == pytest.approx(expected, rel=1e-5)
    assert feature_loss([[3 * theirs]], [[theirs]]).item() == pytest.approx(0, abs=1e-6)  # scale is free
    assert feature_loss([[ours, theirs]], [[theirs, theirs]]).item() == pytest.approx(expected / 2, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_is_shared_between_labels_and_teachers(write_recipe, packages, tmp_path, share, radiographs, patients):
    settings = {"pos_weight": "none", "teachers": packages, "teacher_share": share}
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", loss=settings))
    run = loop.start_run(recipe, tmp_path / "run", resume=False)
    run.start_cycle(recipe.cycles[0])
    labels = (torch.arange(28).view(2, 14) % 3 == 0).float()
    loss = run.loss(run.trained.eval(), radiographs, patients, labels)
    score = run.trained(radiographs, patients).logits.sigmoid().detach().double().numpy()

    def entropy(wanted: np.ndarray) -> float:
        return -(wanted * np.log(score) + (1 - wanted) * np.log(1 - score)).mean()

    expected = (1 - share) * entropy(labels.numpy()) + share * entropy(mean_score(packages, radiographs, patients))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_student_comes_to_score_as_its_teachers(write_recipe, packages, tmp_path):
    settings = {"teachers": packages, "teacher_share": 1.0}
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", loss=settings, learning_rate=0.1, patient_dropout=0.0))
    run = loop.start_run(recipe, tmp_path / "run", resume=False)
    run.start_cycle(recipe.cycles[0])
    _, pixels, patients = next(run.validation_batches(recipe.cycles[0]))
    wanted, apart = mean_score(packages, pixels, patients), []
    for epochs in (0, 2):
        for _ in range(epochs):
            loop.train_epoch(run, recipe.cycles[0], lambda: False)
            run.state.epoch, run.state.step = run.state.epoch + 1, 0
        with torch.no_grad():
            scores = run.trained.eval()(pixels, patients).logits.sigmoid().numpy()
        apart.append(np.abs(scores - wanted).mean())
    assert apart[1] < apart[0] / 3


def test_a_student_comes_to_see_what_its_teachers_see_and_keeps_no_projection(write_recipe, packages, tmp_path):
    settings = {"teachers": packages, "teacher_share": 1.0, "feature_weight": 1.0}
    values = {"loss": settings, "learning_rate": 0.01, "cycles": [{"epochs": 3, "image_size": 64}]}
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", **values))
    run = loop.start_run(recipe, tmp_path / "run", resume=False)
    run.start_cycle(recipe.cycles[0])
    _, pixels, patients = next(run.validation_batches(recipe.cycles[0]))

    def distance() -> float:
        with torch.no_grad():
            _, projected = run.trained.eval()(pixels, patients)
            return feature_loss(projected, run.loss.teachers.score(pixels, patients)[1]).item()

    before = distance()
    for _ in range(3):
        loop.train_epoch(run, recipe.cycles[0], lambda: False)
        run.state.step = 0
        loop.end_epoch(run, recipe.cycles[0])
    assert distance() < before / 2
    kept = CxrFpnForImageClassification.from_pretrained(tmp_path / "run").state_dict()
    assert kept.keys() == run.network.state_dict().keys()


def test_images_without_labels_are_learnt_from_teachers_alone(write_recipe, chests, packages, tmp_path):
    """Their labels are unknown, which is neither present nor absent: only the teachers' part of the loss sees them."""
    prepare(open_source(f"unlabelled:{chests}"), tmp_path / "more", size=64, processes=1)
    settings = {"pos_weight": "none", "teachers": packages, "teacher_share": 0.5}
    further = [{"source": f"parquet:{tmp_path / 'more'}", "share": 0.5}]
    shards = PreparedShards(tmp_path / "more")
    assert np.isnan(shards.labels).all() and len(shards) == 150
    recipe = read_recipe(
        write_recipe(tmp_path / "recipe.yaml", loss=settings, source="phantom:40", more_sources=further)
    )
    assert recipe.more_sources[0].share == 0.5
    with pytest.raises(RecipeError, match="unlabelled:x: has no labels; only teachers can use it"):
        read_recipe(write_recipe(tmp_path / "recipe.yaml", more_sources=[{"source": "unlabelled:x"}]))


def test_a_teacher_that_is_not_there_and_a_share_beyond_1_are_one_line(write_recipe, tmp_path):
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", loss={"teachers": [str(tmp_path / "nobody")]}))
    with pytest.raises(PackageError, match="nobody: there is no such folder") as caught:
        loop.train(recipe, tmp_path / "run")
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match="loss: teacher_share must lie in 0 to 1"):
        read_recipe(write_recipe(tmp_path / "recipe.yaml", loss={"teacher_share": 1.5}))
