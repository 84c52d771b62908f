"""What it costs to give freed memory back to the kernel after every step: training with and without."""

import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.ratio import Row

ROOT = Path(__file__).resolve().parents[1]
SIZE, BATCH, STEPS, ROUNDS = 128, 24, 5, 3
# The settings cannot be undone, so that each side needs a process of its own.
TRAINING = f"""
import sys, time
import torch
from cxrfpn.training.allocator import keep_freed_memory
from configuration_cxrfpn import CxrFpnConfig
from modeling_cxrfpn import CxrFpnForImageClassification

if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit("this C library does not take the settings")
model = CxrFpnForImageClassification(CxrFpnConfig(image_size={SIZE})).train().to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
images = torch.randn({BATCH}, 3, {SIZE}, {SIZE}).contiguous(memory_format=torch.channels_last)
labels = torch.zeros({BATCH}, 14)
for step in range({STEPS} + 2):
    if step == 2:
        started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        model(images, labels=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(time.perf_counter() - started)
"""


def measure() -> list[Row]:
    """Train DenseNet-121 for a few steps in fresh processes, in turn."""
    pairs = [(_seconds("kept"), _seconds("given back")) for _ in range(ROUNDS)]
    kept, given_back = (statistics.median(times) for times in zip(*pairs, strict=True))
    return [
        Row(
            "a training step, freed memory kept in the process / given back to the kernel",
            statistics.median(mine / theirs for mine, theirs in pairs),
            0.9,
            f"({STEPS * BATCH / kept:.0f} / {STEPS * BATCH / given_back:.0f} images/s at {SIZE} px)",
        )
    ]


def _seconds(memory: str) -> float:
    command = [sys.executable, "-c", TRAINING, memory]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
