"""Write the card of a run: what the model is for, how it was measured, and where it fails, from metrics.json."""

import re
from collections.abc import Sequence

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.card_calls import any_finding_section, three_way_section
from cxrfpn.evaluation.card_sections import (
    calibration_section,
    comparison_section,
    localisation_section,
    other_labels_section,
    picture,
    results_section,
    subgroups_section,
    thresholds_section,
)
from cxrfpn.evaluation.figures import Figures
from cxrfpn.evaluation.intervals import FEWEST_PATIENTS
from cxrfpn.evaluation.thresholds import FEWEST_POSITIVES
from thresholds_cxrfpn import FittedOn

# In the order of the card, after the results.
SECTIONS = (
    other_labels_section,
    thresholds_section,
    any_finding_section,
    three_way_section,
    calibration_section,
    subgroups_section,
    localisation_section,
    comparison_section,
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")

ABOUT = """\
# {name}

Finds {findings} in a frontal chest radiograph: DenseNet-121, a feature pyramid, and fusion
with the patient's age, sex and view position, each of which may be unknown.

```python
from transformers import pipeline

# The package's own code runs: from the Hub, add revision="<a commit that you have read>".
findings = pipeline("chest-xray-findings", model="{name}", trust_remote_code=True)
findings({{"image": "radiograph.png", "age": 63, "sex": "F", "view_position": "PA"}})
```

**Intended use.** Research and teaching: a baseline to compare with, and a way to learn how such models are measured.

**Misuse.** It is no medical device. It must not diagnose, sort or reassure anybody: it was never tested in a clinic,
and the figures below show how often it is wrong. Lateral views, CT slices and photographs of films are outside of what
it has seen, and it will score them all the same.
"""

LIMITS = """\
## Limits

- The labels were mined from radiologists' reports by a program (Wang et al., 2017), which errs in about one of ten; a
  label says what a report mentions, not what the image shows.
- NIH's test set is another population than its training set (more portable AP views, more disease). Thresholds and
  calibration are fitted on validation and are biased where prevalence differs; `score.py --prevalence` shows how much.
- One hospital, and scanners of one era. Expect worse figures anywhere else.
- Age, sex and view position alone predict some findings (see the baseline). A fused model uses that; it is no knowledge
  of the image.
- Small or compressed images hide small findings; compare the figures of sharp and blurred sources where both are given.
- A finding map shows what moved the score, not where a disease ends.
"""


def write_card(figures: Figures, plots: Sequence[str], recipe: str | None = None) -> str:
    """README.md of a scored system; of a model with what it is for, and `model-index` metadata for the Hub.

    Args:
        figures: as metrics.json holds them.
        plots: names of the pictures in plots/, without `.png`.
        recipe: the text of the recipe that the model was trained by.
    """
    name, sections = figures["system"], []
    sections.append(ABOUT.format(name=name, findings=_named(figures)) if figures["is_model"] else f"# {name}: scores\n")
    sections += [_data(figures), results_section(figures, plots)]
    sections += [section(figures) for section in SECTIONS]
    if recipe:
        sections.append(f"## Recipe\n\n```yaml\n{recipe.strip()}\n```\n")
    pictures = [picture(plot) for plot in plots if plot != "auroc"]
    sections.append("## Pictures\n\n" + "\n".join(pictures))
    if not figures["is_model"]:
        return "\n".join(filter(None, sections))
    metadata = ModelCardData(
        model_name=name,
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["chest-x-ray", "radiology", "multi-label", "densenet", "feature-pyramid"],
        datasets=[figures["source"].split("@")[0]] if _HUB_ID.fullmatch(figures["source"]) else None,
        metrics=["roc_auc", "f1"],
        eval_results=_eval_results(figures),
    )
    sections.append(LIMITS)
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n".join(filter(None, sections))))


def _named(figures: Figures) -> str:
    """Describe in words what the model finds."""
    names = tuple(figures["findings"])
    if names == FINDINGS:
        return "the 14 findings of NIH ChestX-ray14"
    return f"{len(names)} {'finding' if len(names) == 1 else 'findings'} ({', '.join(names)})"


def _eval_results(figures: Figures) -> list[EvalResult]:
    values = {
        ("roc_auc", "mean AUROC"): figures["mean_auroc"],
        ("average_precision", "mean average precision"): figures["macro"]["average_precision"],
        ("f1", "macro F1"): figures["macro"]["f1"],
        ("f1", "micro F1"): figures["micro"]["f1"],
        ("accuracy", "exact match"): figures["exact_match"],
        ("hamming_loss", "Hamming loss"): figures["hamming_loss"],
        **{("roc_auc", f"AUROC {name}"): figure["auroc"] for name, figure in figures["findings"].items()},
    }
    source = figures["source"]
    return [
        EvalResult(
            task_type="image-classification",
            task_name="multi-label classification",
            dataset_type=source.split("@")[0] if _HUB_ID.fullmatch(source) else source.split(":")[0],
            dataset_name=f"{figures['images']:,} radiographs of {source}",
            dataset_split=figures["split"],
            metric_type=kind,
            metric_name=label,
            metric_value=round(value, 4),
        )
        for (kind, label), value in values.items()
        if value is not None
    ]


def _data(figures: Figures) -> str:
    fitted = figures["fitted_on"]
    lines = [
        "## Data\n",
        f"Scored on {figures['images']:,} images of {figures['patients']:,} patients: `{figures['source']}`, "
        f"split `{figures['split']}` of the protocol `{figures['protocol']}`. Intervals are 95 % of "
        f"{figures['resamples']:,} resamples of {figures['resampled']}.",
    ]
    if figures["protocol"] == "report":
        lines.append(
            "That protocol splits images, not patients: others of the same patients were trained on, so that these "
            "figures flatter the model."
        )
    if fitted:
        lines.append(
            f"Thresholds and calibration were fitted on {fitted['images']:,} images{_patients(fitted)} "
            f"(`{fitted['dataset']}`, split `{fitted['split']}`). Findings are called by the operating point "
            f"`{figures['operating_point']}`."
        )
    if unknown := {name: figure["unknown"] for name, figure in figures["findings"].items() if figure.get("unknown")}:
        counts = ", ".join(f"{name} on {count:,}" for name, count in unknown.items())
        lines.append(f"Unknown, and left out of every figure: {counts} images.")
    if figures["undefined"]:
        lines.append(f"Undefined for lack of positives or negatives: {', '.join(figures['undefined'])}.")
    if (fit := figures.get("fit")) and fit["below"]:
        lines.append(
            f"{fit['below']:,} of {fit['images']:,} images do not look like upright frontal chest radiographs of "
            "adults. They are scored like the others."
        )
    if few := [name for name, figure in figures["findings"].items() if figure["few_positives_to_fit"]]:
        lines.append(
            f"Thresholds marked * were fitted on fewer than {FEWEST_POSITIVES} positives, or on positives of fewer "
            f"than {FEWEST_PATIENTS} patients: {', '.join(few)}."
        )
    return "\n".join(lines) + "\n"


def _patients(fitted: FittedOn) -> str:
    return f" of {fitted['patients']:,} patients" if "patients" in fitted else ""
