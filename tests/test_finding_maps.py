"""The pooling of the pyramid's levels, and the finding maps, which share its weights of the places."""

import math

import pytest
import torch
import torch.nn.functional as F

from configuration_cxrfpn import FINDINGS
from modeling_cxrfpn import CxrFpnForImageClassification
from pooling_cxrfpn import pool_scores


def test_pooling_goes_from_the_mean_to_the_maximum(tiny_config, radiographs):
    models = {sharp: CxrFpnForImageClassification(tiny_config(pooling_sharpness=sharp)) for sharp in (0.0, 1.5, 1e4)}
    levels = [torch.randn(2, 16, side, side, generator=torch.Generator().manual_seed(side)) for side in (8, 4, 2)]
    pooled = {sharp: model.pool(levels) for sharp, model in models.items()}
    torch.testing.assert_close(pooled[0.0], torch.cat([level.mean(dim=(2, 3)) for level in levels], dim=1))
    torch.testing.assert_close(pooled[1e4], torch.cat([level.amax(dim=(2, 3)) for level in levels], dim=1))
    places = levels[1][1, 3].flatten().tolist()
    weights = [math.exp(1.5 * place) for place in places]
    expected = sum(weight * place for weight, place in zip(weights, places, strict=True)) / sum(weights)
    assert pooled[1.5][1, 16 + 3].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sharpness", [0.0, 2.0])
def test_finding_maps_are_what_each_place_adds_to_the_logit(tiny_config, radiographs, patients, sharpness):
    tiny_model = CxrFpnForImageClassification(tiny_config(pooling_sharpness=sharpness)).eval()
    asked = ["Nodule", "Hernia"]
    maps = tiny_model.finding_maps(radiographs, patients, asked)
    assert maps.shape == (2, 2, 8, 8) and maps.min() >= 0 and maps.amax(dim=(2, 3)).max() == 1
    window = torch.tensor([math.sin(min(math.pi / 2, (x + 0.5) / 8 * 1.5 * math.pi)) ** 2 for x in (0, 1, 2, 3)])
    window = torch.cat([window, window.flip(0)])  # fading over a third of each side
    # Independently: back-propagate to the three pyramid levels, whose places weigh what they weigh.
    levels = [level.detach().requires_grad_() for level in tiny_model.pyramid_levels(radiographs)]
    weights = [torch.exp(sharpness * level.detach()) for level in levels]
    weights = [weight / weight.sum(dim=(2, 3), keepdim=True) for weight in weights]
    pooled = torch.cat([(level * weight).sum(dim=(2, 3)) for level, weight in zip(levels, weights, strict=True)], dim=1)
    torch.testing.assert_close(tiny_model.classify(pooled, patients), tiny_model(radiographs, patients).logits)
    for column, name in enumerate(asked):
        logit = tiny_model.classify(pooled, patients)[:, FINDINGS.index(name)].sum()
        gradients = torch.autograd.grad(logit, levels, retain_graph=True)
        total = sum(
            F.interpolate((g * level).sum(1, keepdim=True), size=(8, 8), mode="bilinear", align_corners=False)
            for g, level in zip(gradients, levels, strict=True)
        )[:, 0]
        faded = (total - total.amin(dim=(1, 2), keepdim=True)) * window[:, None] * window
        expected = faded / faded.amax(dim=(1, 2), keepdim=True)
        torch.testing.assert_close(maps[:, column], expected.detach(), rtol=1e-4, atol=1e-5)


def test_finding_maps_need_no_gradients_around_them(tiny_model, radiographs):
    expected = tiny_model.finding_maps(radiographs, None, ["Mass"])
    with torch.inference_mode():
        torch.testing.assert_close(tiny_model.finding_maps(radiographs, None, ["Mass"]), expected)
        logits, _ = tiny_model.forward_with_maps(radiographs)
        torch.testing.assert_close(logits, tiny_model(radiographs).logits)


class TestPooledScores:
    """The head scores every place of the finest level; a place raises the logit by its own score alone."""

    @pytest.fixture
    def model(self, tiny_config):
        torch.manual_seed(0)
        return CxrFpnForImageClassification(tiny_config(pooling="scores", pooling_sharpness=2.0)).eval()

    def test_a_logit_is_the_log_of_the_mean_exponential_of_the_places_scores(self, model, radiographs, patients):
        levels = model.pyramid_levels(radiographs)
        expected = torch.empty(2, 14)
        for image in range(2):
            scores = []
            for row in range(8):
                for column in range(8):
                    features = F.relu(model.image_branch(levels[0][image, :, row, column]))
                    known = model.patient_branch(patients[image])
                    scores.append(model.head(torch.cat([features, known])))
            expected[image] = torch.stack(scores).mul(2).exp().mean(dim=0).log() / 2
        torch.testing.assert_close(model(radiographs, patients).logits, expected, rtol=1e-4, atol=1e-5)

    def test_the_finest_level_is_torchvisions_and_every_parameter_learns(self, model, tiny_config, radiographs):
        """Layers that nothing reads would stop training in several processes."""
        whole = CxrFpnForImageClassification(tiny_config()).eval()
        state = model.state_dict()
        whole.load_state_dict({**whole.state_dict(), **{n: v for n, v in state.items() if n.startswith(("b", "py"))}})
        torch.testing.assert_close(model.pyramid_levels(radiographs)[0], whole.pyramid_levels(radiographs)[0])
        assert len(model.pyramid_levels(radiographs)) == 1
        model.train()(radiographs, torch.full((2, 3), torch.nan)).logits.sum().backward()
        known = {"patient_branch.known.weight"}  # of patients of whom something is known
        assert {name for name, weight in model.named_parameters() if weight.grad is None} <= known

    def test_maps_are_the_places_scores(self, model, radiographs, patients):
        logits, maps = model.forward_with_maps(radiographs, patients, ["Nodule", "Hernia"])
        torch.testing.assert_close(logits, model(radiographs, patients).logits)
        assert not logits.requires_grad and not maps.requires_grad  # .numpy() refuses what does
        scores = model.score_places(model.pyramid_levels(radiographs), patients)
        chosen = scores[:, [FINDINGS.index("Nodule"), FINDINGS.index("Hernia")]].detach().numpy()
        low, high = (getattr(chosen, bound)(axis=(2, 3), keepdims=True) for bound in ("min", "max"))
        torch.testing.assert_close(maps, torch.from_numpy((chosen - low) / (high - low)))

    def test_the_embedding_is_pooled_for_use_and_not_while_training(self, model, radiographs):
        pooled = model(radiographs).pooler_output
        torch.testing.assert_close(pooled, model.pool(model.pyramid_levels(radiographs)))
        assert model.train()(radiographs).pooler_output is None

    def test_pooling_goes_from_the_mean_to_the_maximum(self):
        scores = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(pool_scores(scores, 0.0), scores.mean(dim=(2, 3)))
        torch.testing.assert_close(pool_scores(scores, 1e-3), scores.mean(dim=(2, 3)), atol=1e-3, rtol=0)
        torch.testing.assert_close(pool_scores(scores, 1e4), scores.amax(dim=(2, 3)), atol=1e-3, rtol=0)

    def test_what_cannot_be_pooled_is_refused(self, tiny_config):
        with pytest.raises(ValueError, match="pooling of scores needs a pyramid"):
            tiny_config(pooling="scores", pyramid_channels=0)
        with pytest.raises(ValueError, match="pooling must be one of features, scores, got 'max'"):
            tiny_config(pooling="max")
