"""What ten million radiographs cost: predict.py --source, from a parquet part to a parquet part, beside the network."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers.image_utils import SizeDict

from benchmarks.data import one_core
from benchmarks.inference import MODEL, REPORT_SIZE
from benchmarks.ratio import Row, time_ratio
from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.shards import write_shard
from cxrfpn.data.sources import open_source
from cxrfpn.prediction.parts import predict_parts
from cxrfpn.publishing.onnx_export import export_onnx
from engine_cxrfpn import Engine
from exported_cxrfpn import ExportedEngine, OpenVinoEngine
from loading_cxrfpn import load_pipeline
from torch_engine_cxrfpn import TorchEngine

BATCH = 16
# As prepare.py leaves them, and as NIH's own are streamed.
PREPARED_SIDE, RADIOGRAPH_SIDE = 256, 1024


def measure() -> list[Row]:
    """On one core, the decoding processes included: its seconds are what an archive of any size is paid for in."""
    with one_core(), tempfile.TemporaryDirectory() as folder:
        own = _exported(Path(folder) / "own.onnx")
        engines = TorchEngine(load_pipeline(MODEL)), own, _exported(Path(folder) / "report.onnx", REPORT_SIZE)
        kinds = ("prepared shards", PREPARED_SIDE, 128), ("radiographs of 1024 px, JPEG", RADIOGRAPH_SIDE, 48)
        return [_archive(engine, *kind, 1.15) for engine in engines for kind in kinds]


def _exported(path: Path, size: int | None = None) -> Engine:
    """Load the released network in OpenVINO, at its own size in pixels or at another."""
    pipe = load_pipeline(MODEL)
    if size is not None:
        pipe.image_processor.size = SizeDict(height=size, width=size)
    export_onnx(pipe, path)
    return OpenVinoEngine(path)


def _archive(engine: Engine, what: str, side: int, images: int, aim: float) -> Row:
    drawn = PhantomSource(images, side=side)
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder) / "part.parquet", [(row, side) for row in drawn.rows(drawn.parts()[0])], {})
        source, written = open_source(f"parquet:{folder}"), Path(folder) / "predictions"
        network = _network(engine)

        def ours() -> None:
            predict_parts(engine, source, {"part.parquet": written}, batch_size=BATCH)

        def theirs() -> None:
            for _ in range(images // BATCH):
                network()

        ratio, mine, other = time_ratio(ours, theirs, rounds=3)
    return Row(
        f"an archive of {what} by {engine.backend} in {engine.precision} / its bare network on ready tensors, on one "
        "core",
        ratio,
        aim,
        f"({images / mine:.0f} / {images / other:.0f} images/s at {engine.pixels()['size']} px)",
    )


def _network(engine: Engine) -> Callable[[], object]:
    """Run a batch of ready tensors through the engine's network alone."""
    size = engine.pixels()["size"]
    if isinstance(engine, TorchEngine):
        ready = {"pixel_values": torch.randn(BATCH, 3, size, size), "patient": torch.zeros(BATCH, 3)}
        return lambda: engine.pipe.forward(dict(ready))
    pixel_values = np.random.default_rng(0).standard_normal((BATCH, 3, size, size), np.float32)
    assert isinstance(engine, ExportedEngine)
    return lambda: engine.run(pixel_values, np.zeros((BATCH, 3), np.float32))
