"""The pipeline in torch as an engine."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from answer_cxrfpn import Answer
from engine_cxrfpn import Engine
from pipeline_cxrfpn import ChestXrayFindingsPipeline, TensorInputs, uses_bf16
from pixels_cxrfpn import MAX_PIXELS
from radiograph_cxrfpn import Radiograph


class TorchEngine(Engine[TensorInputs]):
    """The engine that every package has: its own network.

    Args:
        pipe: the pipeline of a package; by `--trust-remote-code` that of the package's own modules.
    """

    backend = "torch"

    def __init__(self, pipe: ChestXrayFindingsPipeline):
        self.pipe = pipe
        self.source = str(pipe.model.name_or_path)
        self.findings = pipe.model.findings
        self.thresholds = pipe.thresholds

    @property
    def precision(self) -> str:  # type: ignore[override]
        """The precision in which convolutions are computed."""
        return "bf16" if uses_bf16(self.pipe.device, self.pipe.model.dtype) else "fp32"

    def read(self, image: object, name: str | None = None, max_pixels: int | None = None) -> Radiograph:
        """See `Engine.read`."""
        return self.pipe.image_processor.read(image, name, max_pixels or MAX_PIXELS)

    def prepare(self, inputs: object) -> TensorInputs:
        """See `Engine.prepare`."""
        return self.pipe.preprocess(inputs)

    def answer(
        self,
        prepared: Sequence[TensorInputs],
        operating_point: str | None = None,
        *,
        maps: bool = False,
        embeddings: bool = False,
    ) -> list[Answer]:
        """See `Engine.answer`."""
        inputs = {
            "pixel_values": torch.cat([each["pixel_values"] for each in prepared]),
            "patient": torch.cat([each["patient"] for each in prepared]),
        }
        outputs = self.pipe.forward(inputs, maps=maps, embedding=embeddings)
        tensors = {name: outputs[name] for name in ("logits", "maps", "embedding") if name in outputs}
        return [
            self.pipe.postprocess(
                {
                    "notes": each["notes"],
                    "fit": each["fit"],
                    **{name: tensor[index, None] for name, tensor in tensors.items()},
                },
                operating_point,
            )
            for index, each in enumerate(prepared)
        ]

    def place_map(self, finding_map: np.ndarray, height: int, width: int) -> np.ndarray:
        """See `Engine.place_map`."""
        return self.pipe.image_processor.place_map(finding_map, height, width)

    def pixels(self) -> dict[str, int | None]:
        """See `Engine.pixels`."""
        processor = self.pipe.image_processor
        return {"size": processor.size.height, "prepared_size": processor.prepared_size}

    def weights_digest(self) -> str | None:
        """See `Engine.weights_digest`."""
        return self.pipe.weights_digest()

    def package_file(self, name: str) -> Path | None:
        """See `Engine.package_file`."""
        return self.pipe.package_file(name)

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        # Among several processes, transformers leaves a model where it was loaded.
        self.pipe.model.to(device)
        self.pipe.device = device
