"""The results part of README.md, from the figures in results/: python -m cxrfpn.evaluation.readme"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrfpn.data.sharpness import SHARP_SIDE
from cxrfpn.evaluation.ablation import table as ablation_table
from cxrfpn.evaluation.thresholds import FEWEST_POSITIVES

ROOT = Path(__file__).resolve().parents[2]
METRICS, ABLATION, README = ROOT / "results" / "metrics.json", ROOT / "results" / "ablation.json", ROOT / "README.md"
# A sensitivity under which an operating point as good as never calls a finding: one positive in twenty.
BLIND = 0.05
# As it was measured before the pyramid was rectified.
UNRECTIFIED = ROOT / "results" / "ablation-unrectified.json"
PART = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", re.DOTALL)
# Radiographs that a row of the ablation is shown: the epochs of its recipe over what they show.
ABLATION_IMAGES = "35,000"


def results_part(figures: Mapping[str, Any], ablation: Mapping[str, Any], unrectified: Mapping[str, Any]) -> str:
    """What the released model scores, in words and a table.

    Args:
        figures: as `score.py` writes them into metrics.json, of a source with sharp and blurred images.
        ablation: as `measure_rows` gives it; unrectified: the same, measured when every pyramid was the report's.
    """
    every = _with_interval(figures, "mean_auroc")
    sharp, fitted = figures["subgroups"]["source"]["groups"]["sharp"], figures["fitted_on"]
    points = figures["operating_points"]
    youden, default = points["youden"], points[figures["operating_point"]]
    rows = [
        f"| {finding.replace('_', ' ')}{' *' if told['few_positives_to_fit'] else ''} | {_with_interval(told)} "
        f"| {youden[finding]['true_positives']:,} of {told['positives']:,} "
        f"| {youden[finding]['false_positives']:,} of {figures['images'] - told['positives']:,} |"
        for finding, told in figures["findings"].items()
    ]
    maps, blindly = (figures["localisation"][name]["mean"] for name in ("model", "mean_box"))
    blind = [finding for finding, called in default.items() if called["sensitivity"] < BLIND]
    return f"""
## What the released model is, and what it scores

Made on two CPU cores from what could be had there, in seven runs. `recipes/pretraining.yaml` looked at no finding: half
of each of 29,136 radiographs is hidden and painted in, and age, view and sex are read from the rest where they are
known; 14,270 of them came without usable labels, from public collections in which patients of the test list may be.
`recipes/release-1.yaml` learnt the findings from 8,516 radiographs of NIH's official train list, a tenth of it, most of
which exist at 128 pixels only; `release-2.yaml` from these and 6,316 more, of other patients, of which only the lungs
are left; `release-3.yaml` from whole chests again. `release-4.yaml` and `release-5.yaml` are these two once more,
larger, the second of them with strong places counting for more where a level is pooled. `release-6.yaml` learnt, beside
the labels, what the models of `release-3.yaml` and `release-5.yaml` score together. **It is weak, and here to prove the
road, not to be relied upon.** On the {sharp["images"]:,} sharp radiographs of {sharp["patients"]:,} test patients
(those whose files have {SHARP_SIDE} pixels or more on the shorter side), whose findings it was never shown:

| mean AUROC of the 14 findings | sharp test radiographs |
|---|---|
| **this model** | **{_with_interval(sharp)}** |
| age, view position and sex alone | {_with_interval(ablation["rows"]["patient-only"], "mean_auroc")} |
| these and 150 principal components of 48 x 48 pixels | {_with_interval(ablation["rows"]["pixels"], "mean_auroc")} |

Intervals are 95 % of {figures["resamples"]:,} resamples of patients. For scale: a DenseNet-121 that began with ImageNet
weights and saw all of NIH's train list reaches about 0.82 on the whole official test list. On all
{figures["images"]:,} test radiographs at hand, blurred ones included, this model has {every}:

| finding | AUROC | positives called | negatives called |
|---|---|---:|---:|
{chr(10).join(rows)}

Called by the operating point `youden`. **The default, the report's dynamic adjustment, calls next to nothing of
{len(blind)} findings** (under one positive in twenty): it wants a precision that a weak model does not reach on rare
findings, and where no threshold has it, it falls back to 0.45. What is not called is not ruled out. Where a finding is
marked *, validation had fewer than {FEWEST_POSITIVES} positives to fit thresholds on.

Where radiologists drew boxes, the peak of a finding map lies in one of them in
{_with_interval(maps, "pointing_accuracy")} of the cases (the mean over findings); the middle of the mean box of other
patients, chosen blindly, in {_with_interval(blindly, "pointing_accuracy")}. A map hints at what moved the score, and no
more.

What each part is worth, on the same {ablation["images"]:,} sharp test radiographs: runs at 64 pixels that differ in one
thing, each shown some {ABLATION_IMAGES} radiographs; what such short runs show need not hold for long ones. A
difference is paired by patient; where its interval holds 0, nothing is shown. The first model was made by
`recipes/nih-mini.yaml` and `recipes/nih-mini-longer.yaml`.

{ablation_table(ablation)}

What made the third model better than the second, more training, more radiographs, the rectified pyramid or the size
that it is used at, these rows do not tell apart. What came after it added nothing to this figure: two runs that were to
bring larger pictures and maps with a peak, and the one that learnt from two of the models before it. It was better than
them on the validation fold, by which the released model is chosen, and is no better here.

Earlier, with the report's pyramid in every row but the plain one and some 90,000 radiographs a row, a plain DenseNet
was ahead of it by {_paired(unrectified, "plain")}, beginning with what `pretraining.yaml` learnt was worth
{_paired(unrectified, "pretrained")}, and lungs-only radiographs, half of all that were shown and until the last step,
cost {_paired(unrectified, "lungs")}.

Thresholds and calibration were fitted on the {fitted["images"]:,} radiographs of the validation fold; the official test
list is another population (more portable films, more disease), so they are biased there.
[results/README.md](results/README.md) has every figure and picture, subgroups and localisation included; it, the table
above and this part are written by

```sh
.venv/bin/python score.py --name cxr-densenet-fpn --source parquet:../shared/nih-mini --output-dir results --no-examples
.venv/bin/python -m cxrfpn.evaluation.ablation
.venv/bin/python -m cxrfpn.evaluation.readme
```

"""


def main() -> None:
    part = results_part(*(json.loads(path.read_text()) for path in (METRICS, ABLATION, UNRECTIFIED)))
    README.write_text(PART.sub(lambda _: part, README.read_text()))
    print(f"written: {README}")


def _paired(ablation: Mapping[str, Any], row: str) -> str:
    told = ablation["rows"][row]
    low, high = told["difference_ci"]
    return f"{told['difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def _with_interval(told: Mapping[str, Any], key: str = "auroc") -> str:
    if told[key] is None:
        return "undefined"
    low, high = told[f"{key}_ci"]
    return f"{told[key]:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
