"""What a CPU spends on one file, warm and cold: our engines beside torchxrayvision's DenseNet-121."""

import resource
import subprocess
import sys
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
from cxrfpn.publishing.onnx_export import export_onnx
from cxrfpn.publishing.quantising import quantise
from engine_cxrfpn import Engine
from exported_cxrfpn import INPUTS, OnnxRuntimeEngine, OpenVinoEngine
from loading_cxrfpn import load_pipeline

SIZE = 224
ROUNDS, COLD_ROUNDS = 15, 5
# A user's whole program, from the interpreter's start to the printed findings.
THEIRS_COLD = """
import sys
import skimage, torch, torchvision
import torchxrayvision as xrv
network = xrv.models.DenseNet(weights=None).eval()
image = xrv.datasets.normalize(skimage.io.imread(sys.argv[1]), 255)[None, ...]
prepare = torchvision.transforms.Compose([xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224)])
outputs = network(torch.from_numpy(prepare(image))[None, ...])
print(dict(zip(network.targets, outputs[0].detach().numpy())))
"""

# What a program that loads a model through transformers cannot go below: the imports alone.
IMPORTS = "import torch, torchvision, transformers.modeling_utils"


def measure() -> list[Row]:
    """Time the released network, at 224 pixels, on a PNG of 1024 x 1024 pixels, NIH's own size and kind."""
    pipe = load_pipeline(MODEL)
    pipe.image_processor.size = SizeDict(height=SIZE, width=SIZE)
    with tempfile.TemporaryDirectory() as folder:
        films = [write_drawing(Path(folder) / f"{index}.png", index) for index in range(4)]
        floating, int8 = Path(folder) / "floating.onnx", Path(folder) / "int8.onnx"
        export_onnx(pipe, floating)
        prepared = (pipe.preprocess(film) for film in films)
        quantise(floating, int8, ({name: each[name].numpy() for name in INPUTS} for each in prepared))
        return [
            _warm(films[0], OnnxRuntimeEngine(floating), 0.35),
            _warm(films[0], OpenVinoEngine(floating, "fp32"), 0.35),
            _warm(films[0], OpenVinoEngine(floating, "bf16"), 0.35),
            # A file calls itself int8 once publish.py has measured it, which costs a test set.
            _warm(films[0], OnnxRuntimeEngine(int8), 0.25, "int8"),
            _warm(films[0], OpenVinoEngine(int8), 0.25, "int8"),
            _cold(films[0], floating, "onnx", 0.3),
            _cold(films[0], floating, "openvino", 0.3),
            _cold(films[0], Path(MODEL), "torch", 1.0),
            _above_imports(films[0]),
        ]


def _warm(film: Path, engine: Engine, aim: float, precision: str | None = None) -> Row:
    ratio, ours, theirs = time_ratio(
        lambda: engine({"image": film, "age": 63, "sex": "F", "view_position": "PA"}), _documented(film), ROUNDS
    )
    return Row(
        f"one file to findings, {engine.backend} in {precision or engine.precision} / torchxrayvision's DenseNet-121 "
        "as its documentation uses it",
        ratio,
        aim,
        f"({1000 * ours:.0f} ms / {1000 * theirs:.0f} ms at {SIZE} px)",
    )


def _cold(film: Path, model: Path, backend: str, aim: float) -> Row:
    ours = ["predict.py", str(film), "--model", str(model), "--backend", backend]
    ratio, mine, other = time_ratio(lambda: _run(ours), lambda: _run(["-c", THEIRS_COLD, str(film)]), COLD_ROUNDS, _cpu)
    return Row(
        f"the same in a fresh process, {backend}: from its start to printed findings",
        ratio,
        aim,
        f"({mine:.1f} s / {other:.1f} s of CPU time)",
    )


def _above_imports(film: Path) -> Row:
    ours = ["predict.py", str(film), "--backend", "torch"]
    ratio, mine, other = time_ratio(lambda: _run(ours), lambda: _run(["-c", IMPORTS]), COLD_ROUNDS, _cpu)
    return Row(
        "a fresh process, torch: from its start to printed findings / importing torch, torchvision and transformers",
        ratio,
        1.5,
        f"({mine:.1f} s / {other:.1f} s of CPU time)",
    )


def _cpu() -> float:
    """Return the CPU time of all processes that this one has started and waited for, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], cwd=MODEL, check=True, capture_output=True)


def _documented(film: Path) -> Callable[[], dict[str, float]]:
    """From file to findings as torchxrayvision's README does it; random weights take as long as trained ones."""
    network = xrv.models.DenseNet(weights=None).eval()  # with weights it goes into eval mode by itself
    prepare = torchvision.transforms.Compose([xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(SIZE)])

    def answer() -> dict[str, float]:
        image = xrv.datasets.normalize(skimage.io.imread(film), 255)[None, ...]
        outputs = network(torch.from_numpy(prepare(image))[None, ...])
        return dict(zip(network.targets, outputs[0].detach().numpy(), strict=True))

    return answer
