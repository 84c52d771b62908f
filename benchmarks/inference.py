"""What a user waits for: one radiograph from file to findings, the gate in it, and a folder of them."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import SizeDict

from benchmarks.ratio import Row, time_ratio
from cxrfpn.prediction.inputs import Input
from cxrfpn.prediction.predicting import predict
from gate_cxrfpn import film_fit
from loading_cxrfpn import load_pipeline
from modeling_cxrfpn import CxrFpnForImageClassification
from radiograph_cxrfpn import read_radiograph
from torch_engine_cxrfpn import TorchEngine

MODEL = str(Path(__file__).resolve().parents[1])
FOLDER_OF = 64
# The smaller the input, the more of a prediction is spent on decoding the file, which the plain network is spared.
REPORT_SIZE = 224


def measure() -> list[Row]:
    """Time the released model on files of 1024 x 1024 pixels, NIH's own size and kind (PNG)."""
    pipe = load_pipeline(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        files = [write_drawing(Path(folder) / f"{index:02}.png", index) for index in range(FOLDER_OF)]
        folder_row, own_size = _a_folder(pipe, files), pipe.image_processor.size.height
        gate_row = _gate(pipe, files[0])
        return [*(_one_radiograph(pipe, files[0], size) for size in (own_size, REPORT_SIZE)), gate_row, folder_row]


def _one_radiograph(pipe, file: Path, size: int) -> Row:
    pipe.image_processor.size = SizeDict(height=size, width=size)
    network = CxrFpnForImageClassification.from_pretrained(MODEL).eval()
    decoded = pipe.image_processor(file)["pixel_values"]
    patient = torch.tensor([[0.63, 0.0, 1.0]])

    @torch.inference_mode()
    def eager() -> None:
        network(decoded, patient)

    ratio, ours, theirs = time_ratio(
        lambda: pipe({"image": file, "age": 63, "sex": "F", "view_position": "PA"}), eager, rounds=40
    )
    return Row(
        "one prediction, file to findings / the network alone, eager fp32 NCHW on a decoded tensor",
        ratio,
        0.8,
        f"({1000 * ours:.0f} ms / {1000 * theirs:.0f} ms at {decoded.shape[-1]} px)",
    )


def _gate(pipe, file: Path) -> Row:
    pixels = read_radiograph(file).pixels
    ratio, ours, theirs = time_ratio(lambda: film_fit(pixels), lambda: pipe(file), rounds=40)
    return Row(
        "the gate / one prediction that it is part of, file to findings",
        ratio,
        0.05,
        f"({1000 * ours:.1f} ms / {1000 * theirs:.0f} ms)",
    )


def _a_folder(pipe, files: list[Path]) -> Row:
    inputs = [Input(file) for file in files]
    ratio, ours, theirs = time_ratio(
        lambda: list(predict(TorchEngine(pipe), inputs)), lambda: [pipe(file) for file in files], rounds=5
    )
    return Row(
        f"a folder of {FOLDER_OF} radiographs / {FOLDER_OF} single calls",
        ratio,
        0.6,
        f"({1000 * ours / FOLDER_OF:.0f} ms / {1000 * theirs / FOLDER_OF:.0f} ms an image)",
    )


def write_drawing(path: Path, seed: int) -> Path:
    """Lungs in a body, with a radiograph's grain: what a PNG decoder has to work on."""
    y, x = np.mgrid[0:1:1024j, 0:1:1024j]
    lungs = sum(np.exp(-(((x - cx) / 0.14) ** 2 + ((y - 0.5) / 0.3) ** 2)) for cx in (0.28, 0.72))
    grain = np.random.default_rng(seed).normal(0, 1.5, x.shape)
    Image.fromarray(np.clip(230 - 180 * lungs + grain, 0, 255).astype(np.uint8)).save(path)
    return path
