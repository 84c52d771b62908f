"""A file of `publish.py --onnx` behind the one pipeline: onnxruntime answers in the network's place."""

import json
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from cxrfpn.prediction.inputs import InputError
from image_processing_cxrfpn import CxrFpnImageProcessor
from modeling_cxrfpn import CxrFpnOutput
from package_cxrfpn import PROCESSOR, THRESHOLDS
from pipeline_cxrfpn import ChestXrayFindingsPipeline

FILE_NAME = "model.onnx"
# Its inputs and its output; its metadata hold what a package says in files of the same names, and the findings.
INPUTS, OUTPUT = ("pixel_values", "patient"), "logits"
FINDINGS_KEY = "findings"
NEEDS_EXTRA = "install this project's extra: pip install 'cxr-densenet-fpn[onnx]'"


class OnnxClassifier(nn.Module):
    """An ONNX file, called as the network is; on the CPU, on as many threads as torch.

    Args:
        path: a file of `publish.py --onnx`.

    Raises:
        InputError: onnxruntime is not installed, or cannot load the file.
    """

    dtype = torch.float32
    device = torch.device("cpu")
    missing_weights = ()

    def __init__(self, path: Path):
        super().__init__()
        try:
            import onnxruntime
        except ImportError:
            raise InputError(f"ONNX files need onnxruntime; {NEEDS_EXTRA}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception of its own for each way in which a file can be wrong
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path}: onnxruntime cannot load it ({reason})") from None
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map

    @property
    def findings(self) -> tuple[str, ...]:
        """The names of the findings, in the order of the logits."""
        return tuple(json.loads(self.metadata[FINDINGS_KEY]))

    @property
    def beside(self) -> dict[str, bytes]:
        """What a package holds in files beside its weights."""
        return {THRESHOLDS: self.metadata[THRESHOLDS].encode()}

    def forward(self, pixel_values: Tensor, patient: Tensor) -> CxrFpnOutput:
        """pixel_values [B,3,H,W], normalised, and patient [B,3], NaN for unknown -> logits [B,F]."""
        arrays = (each.contiguous().numpy() for each in (pixel_values, patient))
        (logits,) = self.session.run([OUTPUT], dict(zip(INPUTS, arrays, strict=True)))
        return CxrFpnOutput(logits=torch.from_numpy(logits))

    def forward_with_maps(self, *_: object) -> NoReturn:
        """Maps are drawn from gradients, and an ONNX file has none."""
        raise InputError("maps are drawn from the network's gradients, which ONNX lacks; leave out --backend onnx")


def load_onnx_pipeline(model: str) -> ChestXrayFindingsPipeline:
    """The pipeline on a file of `publish.py --onnx`, or on model.onnx in a folder; nothing else is read.

    Raises:
        InputError: there is no such file, it is another kind of file, or onnxruntime is not installed.
    """
    path = Path(model)
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise InputError(f"{path}: no such file; publish.py RUN --onnx {FILE_NAME} writes one")
    classifier = OnnxClassifier(path)
    if missing := [key for key in (FINDINGS_KEY, THRESHOLDS, PROCESSOR) if key not in classifier.metadata]:
        raise InputError(
            f"{path}: its metadata lack {', '.join(missing)}, which the files of publish.py RUN --onnx have"
        )
    processor = CxrFpnImageProcessor.from_dict(json.loads(classifier.metadata[PROCESSOR]))
    return ChestXrayFindingsPipeline(model=classifier, image_processor=processor, device="cpu")
