"""The weights that a run begins with land where they belong, or are refused in one line."""

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import densenet121

from configuration_cxrfpn import CxrFpnConfig
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
