"""Load, initialise and save: what any network of this package has of transformers, without its layers."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.dynamic_module_utils import custom_object_save

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .configuration_cxrfpn import CxrFpnConfig
    from .findings_cxrfpn import match_findings
    from .image_processing_cxrfpn import CxrFpnImageProcessor
    from .package_cxrfpn import CONFIG, PROCESSOR, THRESHOLDS, WEIGHTS, Package
    from .pipeline_cxrfpn import ChestXrayFindingsPipeline
except ImportError:
    from configuration_cxrfpn import CxrFpnConfig
    from findings_cxrfpn import match_findings
    from image_processing_cxrfpn import CxrFpnImageProcessor
    from package_cxrfpn import CONFIG, PROCESSOR, THRESHOLDS, WEIGHTS, Package
    from pipeline_cxrfpn import ChestXrayFindingsPipeline


class CxrFpnPreTrainedModel(PreTrainedModel):
    """A network that is loaded and saved as a whole package.

    Args:
        config: is checked again, because from_pretrained changes it after it was made.
    """

    config_class = CxrFpnConfig
    base_model_prefix = "cxrfpn"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    # Trainer then gives forward `num_items_in_batch`.
    accepts_loss_kwargs = True
    _no_split_modules = ["DenseNetBackbone", "TimmBackbone"]

    def __init__(self, config: CxrFpnConfig):
        super().__init__(config)
        self.config.check()
        self.package: Package | None = None
        self.beside: dict[str, bytes] = {}  # files of the package that travel with the weights
        self.missing_weights: list[str] = []

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a package as transformers does, and remember what else of it belongs to the weights.

        Where `id2label` names other findings than the package (with `ignore_mismatched_sizes=True` where their number
        differs), each finding that the package knows too, by any of its usual names, keeps its rows of the head.

        Returns:
            the model; with `output_loading_info=True` the model and a mapping.
        """
        if pretrained_model_name_or_path is None:
            return super().from_pretrained(None, *args, **kwargs)
        package = Package.locate(pretrained_model_name_or_path, **kwargs)
        with_info = kwargs.pop("output_loading_info", False)
        kwargs.update(revision=package.revision, output_loading_info=True)
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model.package = package
        model.missing_weights = sorted(info["missing_keys"])
        model.beside = package.read(THRESHOLDS, PROCESSOR)
        names = CxrFpnConfig.from_dict(json.loads(package.read(CONFIG)[CONFIG])).findings
        if names != model.findings:
            model.beside.pop(THRESHOLDS, None)  # it is about other findings
            model.take_finding_rows(load(package.read(WEIGHTS).get(WEIGHTS, b"")), names)
        return (model, info) if with_info else model

    def take_finding_rows(self, weights: Mapping[str, Tensor], names: Sequence[str]) -> list[str]:
        """Initialise what belongs to single findings again, and copy the rows of those that other weights know.

        Args:
            weights: a state dictionary of this network with a head for `names`.
            names: the findings of `weights`, in the order of its logits.

        Returns:
            the findings whose rows were copied.
        """
        matches = match_findings(self.findings, names)
        for prefix, layer in self._layers_by_finding().items():
            layer.reset_parameters()
            for name, parameter in layer.named_parameters():
                source = weights.get(f"{prefix}.{name}")
                if source is not None and source.shape[1:] == parameter.shape[1:]:
                    for place, where in matches.items():
                        parameter.data[place] = source[where]
        return [self.findings[place] for place in matches]

    def _layers_by_finding(self) -> dict[str, nn.Module]:
        """Return the layers whose parameters have a row for each finding, by their names."""
        return {f"head.{len(self.head) - 1}": self.head[-1]}

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        push_to_hub: bool = False,
        **kwargs: object,
    ) -> None:
        """Save a whole package as transformers does: weights and configuration, and what any pipeline needs with them.

        These are all modules, thresholds.json of the package that was loaded (it says which weights it was fitted on),
        and the image processor's configuration where the folder has none.
        """
        to_hub = {
            key: kwargs.pop(key) for key in ("repo_id", "commit_message", "create_pr", "private") if key in kwargs
        }
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        folder = Path(save_directory)
        if self.should_save_on_this_rank(is_main_process) and folder.is_dir():
            custom_object_save(ChestXrayFindingsPipeline, folder)
            if not (folder / PROCESSOR).is_file():
                self._image_processor().save_pretrained(folder)
            if THRESHOLDS in self.beside:
                (folder / THRESHOLDS).write_bytes(self.beside[THRESHOLDS])
        if push_to_hub:
            repo_id = to_hub.pop("repo_id", folder.name)
            self.push_to_hub(repo_id, token=kwargs.get("token"), **to_hub)

    def _image_processor(self) -> CxrFpnImageProcessor:
        """Return the image processor of the package that was loaded, or one for this network."""
        if PROCESSOR in self.beside:
            return CxrFpnImageProcessor.from_dict(json.loads(self.beside[PROCESSOR]))
        return CxrFpnImageProcessor(size={"height": self.config.image_size, "width": self.config.image_size})

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as torchvision and torch do, leaving alone what a checkpoint has filled."""
        if isinstance(module, nn.Conv2d):
            # torchvision: the backbone's convolutions have no bias, the pyramid's do.
            init.kaiming_normal_(module.weight) if module.bias is None else init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = 1 / math.sqrt(module.in_features)
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
