"""What ten million radiographs cost: predict.py --source, from a parquet part to a parquet part, beside the network."""

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.data import one_core
from benchmarks.inference import MODEL
from benchmarks.ratio import Row, time_ratio
from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.shards import write_shard
from cxrfpn.data.sources import open_source
from cxrfpn.prediction.parts import predict_parts
from loading_cxrfpn import load_pipeline
from pipeline_cxrfpn import ChestXrayFindingsPipeline

BATCH = 16
# As prepare.py leaves them, and as NIH's own are streamed.
PREPARED_SIDE, RADIOGRAPH_SIDE = 256, 1024


def measure() -> list[Row]:
    """On one core, in seconds that the processor worked: the unit in which an archive of any size is paid for."""
    with one_core():
        pipe = load_pipeline(MODEL)
        return [
            _archive(pipe, "prepared shards", PREPARED_SIDE, 128, 1.25),
            _archive(pipe, "radiographs of 1024 px, JPEG", RADIOGRAPH_SIDE, 48, 1.5),
        ]


def _archive(pipe: ChestXrayFindingsPipeline, what: str, side: int, images: int, aim: float) -> Row:
    drawn = PhantomSource(images, side=side)
    size = pipe.image_processor.size.height
    ready = {"pixel_values": torch.randn(BATCH, 3, size, size), "patient": torch.zeros(BATCH, 3)}
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder) / "part.parquet", list(drawn.rows(drawn.parts()[0])), {})
        source, written = open_source(f"parquet:{folder}"), Path(folder) / "predictions"

        def ours() -> None:
            predict_parts(pipe, source, {"part.parquet": written}, batch_size=BATCH)

        def network() -> None:
            for _ in range(images // BATCH):
                pipe.forward(dict(ready))

        ratio, mine, other = time_ratio(ours, network, rounds=3, clock=time.process_time)
    return Row(
        f"an archive of {what} / the bare network on ready tensors, on one core",
        ratio,
        aim,
        f"({images / mine:.0f} / {images / other:.0f} images/s at {size} px)",
    )
