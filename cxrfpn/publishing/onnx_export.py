"""A model package -> one ONNX file with all that inference needs: network, thresholds, how pixels are prepared."""

import json
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cxrfpn.files import written_beside
from cxrfpn.prediction.onnx_backend import (
    FINDINGS_KEY,
    INPUTS,
    NEEDS_EXTRA,
    OUTPUT,
    OnnxClassifier,
)
from cxrfpn.publishing.contents import PublishError
from package_cxrfpn import PROCESSOR, THRESHOLDS
from patient_cxrfpn import PATIENT_INPUTS
from pipeline_cxrfpn import ChestXrayFindingsPipeline

# What torch writes ONNX with, and onnxruntime, which reads it again.
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
# The most by which a logit of the file may differ from the network's.
TOLERANCE = 1e-4
WEIGHTS_KEY, SIZE_KEY = "weights_digest", "image_size"


class _Bare(nn.Module):
    """The network for export: patient always given, logits bare."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor, patient: Tensor) -> Tensor:
        return self.network(pixel_values, patient).logits


def export_onnx(pipe: ChestXrayFindingsPipeline, output: Path) -> None:
    """Write a package's network and what goes with it as one ONNX file.

    The file takes `pixel_values` [batch,3,H,W] float, normalised, of the processor's size, and `patient` [batch,3] with
    NaN for unknown, and gives `logits` [batch,F]; any batch will do. It is read again and asked before it gets its
    name. Its metadata hold `findings`, `image_size`, `weights_digest`, `thresholds.json`, `preprocessor_config.json`.

    Args:
        pipe: its network serves for nothing else afterwards.
        output: replaced where it exists.

    Raises:
        PublishError: the package has no thresholds, or those of other weights; what export needs is not installed; the
            file cannot be written, or answers differently.
    """
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        raise PublishError(f"writing ONNX needs {', '.join(missing)}; {NEEDS_EXTRA}")
    require_folder(output)
    _check_thresholds(pipe)
    with written_beside(output) as beside:
        program = _trace(pipe)
        # Where each node came from in the sources: of no use to inference, and full of this machine's paths.
        for node in program.model.graph:
            node.metadata_props.clear()
        program.model.metadata_props.update(_metadata(pipe))
        program.save(beside)
        _check_answers(pipe, beside)


def _check_thresholds(pipe: ChestXrayFindingsPipeline) -> None:
    if THRESHOLDS not in pipe.model.beside:
        raise PublishError(f"the package lacks {THRESHOLDS}; fit thresholds with score.py --fit-thresholds")
    if pipe.thresholds.fitted_on.get(WEIGHTS_KEY) not in (None, pipe.weights_digest()):
        raise PublishError(f"{THRESHOLDS}: was fitted on other weights than these; fit them again with score.py")


def require_folder(output: Path) -> None:
    """Raise a PublishError where there is no folder to write `output` into, before the work that it takes."""
    if not output.parent.is_dir():
        raise PublishError(f"{output}: there is no folder {output.parent}")


def random_inputs(pipe: ChestXrayFindingsPipeline, batch: int) -> dict[str, Tensor]:
    """Noise of the network's form, and patients of whom some things are unknown."""
    generator = torch.Generator().manual_seed(batch)
    size = pipe.image_processor.size
    patient = torch.rand(batch, len(PATIENT_INPUTS), generator=generator)
    patient[torch.rand(patient.shape, generator=generator) < 0.3] = torch.nan
    pixel_values = torch.randn(batch, 3, size.height, size.width, generator=generator)
    return dict(zip(INPUTS, (pixel_values, patient), strict=True))


def _trace(pipe: ChestXrayFindingsPipeline) -> torch.onnx.ONNXProgram:
    inputs, batch = random_inputs(pipe, 2), torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own making: that both inputs share the name of their first axis
        return torch.onnx.export(
            _Bare(pipe.model.float()).eval(),
            tuple(inputs.values()),
            input_names=INPUTS,
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch}, {0: batch}),
            verbose=False,
        )


def _metadata(pipe: ChestXrayFindingsPipeline) -> Mapping[str, str]:
    return {
        FINDINGS_KEY: json.dumps(pipe.model.findings),
        SIZE_KEY: str(pipe.image_processor.size.height),
        WEIGHTS_KEY: pipe.weights_digest(),
        THRESHOLDS: pipe.model.beside[THRESHOLDS].decode(),
        PROCESSOR: pipe.image_processor.to_json_string(),
    }


def _check_answers(pipe: ChestXrayFindingsPipeline, path: Path) -> None:
    exported = OnnxClassifier(path)
    for batch in (1, 3):
        inputs = random_inputs(pipe, batch)
        with torch.inference_mode():
            expected = pipe.model(**inputs).logits.numpy()
        difference = float(np.abs(exported(**inputs).logits.numpy() - expected).max())
        if not difference <= TOLERANCE:
            raise PublishError(f"the exported network's logits are up to {difference:.1g} off, over {TOLERANCE:g}")
