"""What a CPU spends on one file: our ONNX beside torchxrayvision's DenseNet-121, at torchxrayvision's input size."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import skimage
import torch
import torchvision
import torchxrayvision as xrv
from transformers.image_utils import SizeDict

from benchmarks.inference import MODEL, write_drawing
from benchmarks.ratio import Row, time_ratio
from cxrfpn.prediction.onnx_backend import load_onnx_pipeline
from cxrfpn.publishing.onnx_export import export_onnx
from cxrfpn.publishing.quantising import quantise
from loading_cxrfpn import load_pipeline

SIZE = 224
ROUNDS = 15


def measure() -> list[Row]:
    """The released network, at 224 pixels, on a PNG of 1024 x 1024 pixels, NIH's own size and kind."""
    pipe = load_pipeline(MODEL)
    pipe.image_processor.size = SizeDict(height=SIZE, width=SIZE)
    with tempfile.TemporaryDirectory() as folder:
        films = [write_drawing(Path(folder) / f"{index}.png", index) for index in range(4)]
        floating, int8 = Path(folder) / "floating.onnx", Path(folder) / "int8.onnx"
        export_onnx(pipe, floating)
        seen = ({name: tensor.numpy() for name, tensor in pipe.preprocess(film).items()} for film in films)
        quantise(floating, int8, seen)
        return [_row(films[0], floating, "ONNX"), _row(films[0], int8, "ONNX in int8")]


def _row(film: Path, model: Path, name: str) -> Row:
    pipe = load_onnx_pipeline(str(model))
    ratio, ours, theirs = time_ratio(
        lambda: pipe({"image": film, "age": 63, "sex": "F", "view_position": "PA"}), _documented(film), ROUNDS
    )
    return Row(
        f"one file to findings, {name} / torchxrayvision's DenseNet-121 as its documentation uses it",
        ratio,
        0.5,
        f"({1000 * ours:.0f} ms / {1000 * theirs:.0f} ms at {SIZE} px)",
    )


def _documented(film: Path) -> Callable[[], dict[str, float]]:
    """From file to findings as torchxrayvision's README does it; random weights take as long as trained ones."""
    network = xrv.models.DenseNet(weights=None).eval()  # with weights it goes into eval mode by itself
    prepare = torchvision.transforms.Compose([xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(SIZE)])

    def answer() -> dict[str, float]:
        image = xrv.datasets.normalize(skimage.io.imread(film), 255)[None, ...]
        outputs = network(torch.from_numpy(prepare(image))[None, ...])
        return dict(zip(network.targets, outputs[0].detach().numpy(), strict=True))

    return answer
