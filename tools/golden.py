"""Golden scores: what the released model gives for one drawn radiograph, stored to notice changes in the libraries.

After a release of other weights, store them again: python -m tools.golden
"""

import json
from pathlib import Path

import torch

from cxrfpn.files import write_text
from loading_cxrfpn import load_pipeline
from pipeline_cxrfpn import ChestXrayFindingsPipeline

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "results" / "golden_scores.json"
IMAGE = "demo/examples/phantom-edema.png"
PATIENT = {"age": 63, "sex": "F", "view_position": "PA"}


def measure_golden(pipe: ChestXrayFindingsPipeline) -> dict[str, object]:
    """Return the scores of the drawn radiograph, and what gave them.

    They are computed in single precision, as the pipeline's mixed precision differs from one CPU to another.

    Returns:
        `weights_digest`, `image`, `patient`, and `scores` {finding: 0..1}.
    """
    inputs = pipe.preprocess({"image": ROOT / IMAGE, **PATIENT})
    with torch.inference_mode():
        logits = pipe.model(inputs["pixel_values"], inputs["patient"]).logits[0]
    scores = dict(zip(pipe.model.findings, logits.sigmoid().tolist(), strict=True))
    return {"weights_digest": pipe.weights_digest(), "image": IMAGE, "patient": PATIENT, "scores": scores}


def main() -> None:
    """Run the command."""
    write_text(FILE, json.dumps(measure_golden(load_pipeline(str(ROOT))), indent=1) + "\n")
    print(f"written: {FILE}")


if __name__ == "__main__":
    main()
