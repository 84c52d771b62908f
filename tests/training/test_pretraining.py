"""A head start: the hidden stays hidden, the unknown teaches nothing, and a run can begin with what was learnt."""

import math

import pytest
import torch

from cxrfpn.training.loop import train
from cxrfpn.training.pretraining import HIDDEN_SQUARE, MaskedPretraining
from cxrfpn.training.recipe import RecipeError, read_recipe
from modeling_cxrfpn import CxrFpnForImageClassification


@pytest.fixture
def model(tiny_config) -> MaskedPretraining:
    torch.manual_seed(0)
    return MaskedPretraining(CxrFpnForImageClassification(tiny_config())).eval()


def losses(model: MaskedPretraining, pixels: torch.Tensor, patients: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)
    return model(pixels, patients)


def test_nothing_of_a_hidden_square_reaches_the_network(model):
    pixels = torch.randn(2, 1, 64, 64).expand(-1, 3, -1, -1)
    torch.manual_seed(1)
    hidden = model._hide(pixels)
    squares = hidden.view(2, 4, HIDDEN_SQUARE, 4, HIDDEN_SQUARE).float().mean(dim=(2, 4))
    assert set(squares.flatten().tolist()) == {0.0, 1.0}  # whole squares only
    seen = []
    model.network.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    losses(model, pixels, torch.zeros(2, 3))
    assert not seen[0][hidden.expand_as(seen[0])].any()
    assert torch.equal(seen[0][~hidden.expand_as(seen[0])], pixels[~hidden.expand_as(pixels)])


def test_the_painted_error_is_that_of_a_loop_over_the_hidden_places(model):
    pixels, patients = torch.randn(2, 1, 64, 64).expand(-1, 3, -1, -1) * 2 + 1, torch.zeros(2, 3)
    torch.manual_seed(1)
    hidden = model._hide(pixels)
    painted = model.painter(model.network.pyramid_levels(pixels.masked_fill(hidden, 0))[0])
    errors = []
    for image, squares, places in zip(pixels[:, 0], hidden[:, 0], painted, strict=True):
        wanted = (image - image.mean()) / image.std()
        for y, x in torch.nonzero(squares).tolist():
            errors.append((places[(y % 8) * 8 + x % 8, y // 8, x // 8] - wanted[y, x]) ** 2)
    expected = torch.stack(errors).mean().item()
    assert losses(model, pixels, patients)[0].item() == pytest.approx(expected, rel=1e-4)


def test_what_is_unknown_of_a_patient_teaches_nothing(model):
    pixels = torch.randn(3, 3, 64, 64)
    known = torch.tensor([[0.3, 1.0, 0.0], [0.6, 0.0, 1.0]])
    unknown = torch.cat([known, torch.full((1, 3), math.nan)])
    with_unknown = losses(model, pixels, unknown)[1:]
    read = model.reader(model.network.pool(model.network.pyramid_levels(_masked(model, pixels))))[:2]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(read[:, 1:], known[:, 1:], reduction="none").mean(0)
    assert with_unknown[1:].tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    age = torch.nn.functional.smooth_l1_loss(read[:, 0], (known[:, 0] - 0.47) / 0.17)
    assert with_unknown[0].item() == pytest.approx(age.item(), rel=1e-4)
    nobody = losses(model, pixels, torch.full((3, 3), math.nan))
    assert nobody[1:].tolist() == [0, 0, 0] and nobody.isfinite().all()


def _masked(model: MaskedPretraining, pixels: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)
    return pixels.masked_fill(model._hide(pixels), 0)


def test_it_learns_and_a_run_on_findings_begins_with_what_it_learnt(write_recipe, tmp_path, capsys):
    cycles = [{"epochs": 6, "image_size": 64}]
    recipe = write_recipe(tmp_path / "pre.yaml", objective="pretraining", cycles=cycles, learning_rate=1e-2)
    place = train(read_recipe(recipe), tmp_path / "pre")
    painted = [epoch["painted_error"] for epoch in place.epochs]
    assert painted[-1] < 0.8 * painted[0] and {"age_loss", "sex_loss", "view_position_loss"} <= place.epochs[0].keys()
    assert not (tmp_path / "pre" / "thresholds.json").exists()
    assert (tmp_path / "pre" / "plots" / "training_epochs.png").exists()
    start = write_recipe(tmp_path / "on.yaml", backbone_weights=str(tmp_path / "pre"), learning_rate=0.0)
    train(read_recipe(start), tmp_path / "on")
    assert f"begins with {tmp_path / 'pre'}" in capsys.readouterr().out
    assert read_recipe(tmp_path / "on" / "recipe.yaml") == read_recipe(start)
    assert "# objective: pretraining" in (tmp_path / "on" / "recipe.yaml").read_text()
    before, after = (CxrFpnForImageClassification.from_pretrained(tmp_path / name) for name in ("pre", "on"))
    for name, weight in before.backbone.named_parameters():
        assert torch.equal(weight, after.backbone.get_parameter(name)), name


def test_findings_are_not_learnt_from_radiographs_that_nobody_labelled(write_recipe, tmp_path, chests):
    for key, value in (("source", f"unlabelled:{chests}"), ("more_sources", [{"source": f"unlabelled:{chests}"}])):
        with pytest.raises(RecipeError, match="unlabelled:.*: has no labels"):
            read_recipe(write_recipe(tmp_path / "recipe.yaml", **{key: value}))
