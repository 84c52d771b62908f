"""Run every benchmark, or those named, print their ratios and keep them in benchmarks/results.json."""

import argparse
import importlib
import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch

from pipeline_cxrfpn import cpu_multiplies_bf16

RESULTS = Path(__file__).with_name("results.json")
BENCHMARKS = (
    "reading", "inference", "archive", "deployment", "data", "training", "allocator", "evaluation", "demo", "browser",
)  # fmt: skip


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios, measured side by side.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run, of {', '.join(BENCHMARKS)} (all)")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; known are {', '.join(BENCHMARKS)}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names:
        print(f"{name}\n  {'ratio':>7}  {'aim':>7}")
        rows = importlib.import_module(f"benchmarks.{name}").measure()
        for row in rows:
            verdict = "met" if row.ratio <= row.aim else "missed"
            print(f"  {row.ratio:7.3f}  {'<= ' + format(row.aim, 'g'):>7}  {verdict:<6}  {row.what}  {row.remark}")
        results[name] = {"machine": _machine(), "rows": [asdict(row) for row in rows]}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written: {RESULTS}")


def _machine() -> dict[str, object]:
    return {
        "architecture": platform.machine(),
        "threads": torch.get_num_threads(),
        "cpu_bf16": cpu_multiplies_bf16(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
