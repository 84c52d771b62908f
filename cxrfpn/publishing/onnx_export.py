"""A model package -> one ONNX file with all that inference needs: network, thresholds, how pixels are prepared."""

import json
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cxrfpn.files import written_beside
from cxrfpn.publishing.contents import PublishError
from cxrfpn.publishing.exported_network import ExportedNetwork
from exported_cxrfpn import (
    DIGEST_KEY,
    FINDINGS_KEY,
    INPUTS,
    MADE_FROM,
    MADE_FROM_KEY,
    OUTPUTS,
    OnnxRuntimeEngine,
    extra,
)
from package_cxrfpn import PROCESSOR, THRESHOLDS, file_sha256
from patient_cxrfpn import PATIENT_INPUTS
from pipeline_cxrfpn import ChestXrayFindingsPipeline

# What torch writes ONNX with, and onnxruntime, which reads it again.
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
# The most by which a logit, or a place of a map, may differ from the network's.
TOLERANCE = 1e-4
SIZE_KEY = "image_size"


def export_onnx(pipe: ChestXrayFindingsPipeline, output: Path) -> None:
    """Write a package's network and what goes with it as one ONNX file.

    The file takes `pixel_values` [batch,3,H,W] float, normalised, of the processor's size, and `patient` [batch,3] with
    NaN for unknown; any batch will do. It gives what `ExportedNetwork` does. It is read again and asked before it gets
    its name. Its metadata hold `findings`, `image_size`, `weights_digest`, `thresholds.json`,
    `preprocessor_config.json`, and as `made_from` the checksums of the package's files.

    Args:
        pipe: its network serves for nothing else afterwards.
        output: replaced where it exists.

    Raises:
        PublishError: the package has no thresholds, or those of other weights; what export needs is not installed; the
            file cannot be written, or answers differently.
    """
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        raise PublishError(f"writing ONNX needs {', '.join(missing)}; {extra('onnx')}")
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
    if pipe.thresholds.fitted_on.get(DIGEST_KEY) not in (None, pipe.weights_digest()):
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
            ExportedNetwork(pipe.model.float(), pipe.thresholds).eval(),
            tuple(inputs.values()),
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=({0: batch}, {0: batch}),
            verbose=False,
        )


def _metadata(pipe: ChestXrayFindingsPipeline) -> Mapping[str, str]:
    return {
        FINDINGS_KEY: json.dumps(pipe.model.findings),
        SIZE_KEY: str(pipe.image_processor.size.height),
        DIGEST_KEY: pipe.weights_digest(),
        THRESHOLDS: pipe.model.beside[THRESHOLDS].decode(),
        PROCESSOR: pipe.image_processor.to_json_string(),
        MADE_FROM_KEY: json.dumps(_checksums(pipe)),
    }


def _checksums(pipe: ChestXrayFindingsPipeline) -> dict[str, str]:
    paths = {name: pipe.package_file(name) for name in MADE_FROM}
    return {name: file_sha256(path) for name, path in paths.items() if path is not None}


def _check_answers(pipe: ChestXrayFindingsPipeline, path: Path) -> None:
    exported = OnnxRuntimeEngine(path)
    for batch in (1, 3):
        inputs = random_inputs(pipe, batch)
        logits, maps = pipe.model.forward_with_maps(**inputs)
        outputs = exported.run(inputs["pixel_values"].numpy(), inputs["patient"].numpy(), ("logits", "maps"))
        for name, expected in (("logits", logits), ("maps", maps)):
            difference = float(np.abs(outputs[name] - expected.numpy()).max())
            if not difference <= TOLERANCE:
                raise PublishError(f"the exported network's {name} are up to {difference:.1g} off, over {TOLERANCE:g}")
