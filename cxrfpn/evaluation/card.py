"""The card of a run: what the model is for, how it was judged, and where it fails, all from metrics.json."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from cxrfpn.evaluation.thresholds import FEWEST_POSITIVES

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")

ABOUT = """\
# {name}

Finds the 14 findings of NIH ChestX-ray14 in a frontal chest radiograph: DenseNet-121, a feature pyramid, and fusion
with the patient's age, sex and view position, each of which may be unknown.

```python
from transformers import pipeline

findings = pipeline("chest-xray-findings", model="{name}", trust_remote_code=True)
findings({{"image": "radiograph.png", "age": 63, "sex": "F", "view_position": "PA"}})
```

**Intended use.** Research and teaching: a baseline to compare with, and a way to learn how such models are judged.

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
- Age, sex and view position alone predict some findings (see the floor). A fused model uses that; it is no knowledge
  of the image.
- Small or compressed images hide small findings; compare the figures of sharp and blurred sources where both are given.
- A finding map shows what moved the score, not where a disease ends.
"""

CAPTIONS = {
    "auroc": "AUROC of each finding with its interval, beside what age, view position and sex alone reach",
    "roc": "ROC curves, and the point at which the threshold lies",
    "precision_recall": "Precision over recall",
    "confusion": "Confusion matrices at the thresholds",
    "calibration": "Reliability before and after calibration, in bins of equally many images",
    "histograms": "Scores of images with and without each finding",
    "examples": "Test radiographs with true and called findings (blue: all 14 right)",
}


def write_card(figures: Mapping[str, Any], plots: Sequence[str], recipe: str | None = None) -> str:
    """README.md of a scored system; of a model with what it is for, and `model-index` metadata for the Hub.

    Args:
        figures: as metrics.json holds them.
        plots: names of the pictures in plots/, without `.png`.
        recipe: the text of the recipe that the model was trained by.
    """
    name, sections = figures["system"], []
    sections.append(ABOUT.format(name=name) if figures["is_model"] else f"# {name}: scores\n")
    sections += [_data(figures), _results(figures, plots), _thresholds(figures), _calibration(figures)]
    sections += [_subgroups(figures), _localisation(figures), _comparison(figures)]
    if recipe:
        sections.append(f"## Recipe\n\n```yaml\n{recipe.strip()}\n```\n")
    pictures = [_picture(plot) for plot in plots if plot != "auroc"]
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


def _eval_results(figures: Mapping[str, Any]) -> list[EvalResult]:
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
            dataset_type=source.split("@")[0] if _HUB_ID.fullmatch(source) else "nih-chest-xray-14",
            dataset_name=f"NIH ChestX-ray14 ({source})",
            dataset_split=figures["split"],
            metric_type=kind,
            metric_name=label,
            metric_value=round(value, 4),
        )
        for (kind, label), value in values.items()
        if value is not None
    ]


def _data(figures: Mapping[str, Any]) -> str:
    fitted = figures["fitted_on"]
    lines = [
        "## Data\n",
        f"Scored on {figures['images']:,} images of {figures['patients']:,} patients: `{figures['source']}`, "
        f"split `{figures['split']}` of the protocol `{figures['protocol']}`. Intervals are 95 % of "
        f"{figures['resamples']:,} resamples of {figures['resampled']}.",
    ]
    if fitted:
        lines.append(
            f"Thresholds and calibration were fitted on {fitted['images']:,} images (`{fitted['dataset']}`, "
            f"split `{fitted['split']}`), and are called by the operating point `{figures['operating_point']}`."
        )
    if figures["undefined"]:
        lines.append(f"Undefined for lack of positives or negatives: {', '.join(figures['undefined'])}.")
    if few := [name for name, figure in figures["findings"].items() if figure["few_positives_to_fit"]]:
        lines.append(f"Thresholds marked * were fitted on fewer than {FEWEST_POSITIVES} positives: {', '.join(few)}.")
    return "\n".join(lines) + "\n"


def _results(figures: Mapping[str, Any], plots: Sequence[str]) -> str:
    floors = figures["floors"]
    patient = floors.get("patient_only", {"mean_auroc": None, "findings": {}})
    rows = [
        (
            name,
            f"{figure['positives']:,}",
            _interval(figure, "auroc"),
            _number(patient["findings"].get(name)),
            *(_number(figure[key]) for key in ("average_precision", "f1", "precision", "recall", "specificity")),
            _number(figure["threshold"]) + ("*" if figure["few_positives_to_fit"] else ""),
        )
        for name, figure in figures["findings"].items()
    ]
    macro = figures["macro"]
    rows.append(
        (
            "**mean**",
            "",
            _interval(figures, "mean_auroc"),
            _number(patient["mean_auroc"]),
            *(_number(macro[key]) for key in ("average_precision", "f1", "precision", "recall", "specificity")),
            "",
        )
    )
    header = ("finding", "positives", "AUROC (95 % interval)", "by patient alone", "AP", "F1", "precision", "recall",
              "specificity", "threshold")  # fmt: skip
    micro, shuffled = figures["micro"], floors["shuffled_labels"]
    return "\n".join(
        [
            "## Results\n",
            _table(header, rows),
            f"\nExact match {_number(figures['exact_match'])} · Hamming loss {_number(figures['hamming_loss'])} · "
            f"accuracy {_number(figures['accuracy'])} · micro precision, recall and F1 {_number(micro['precision'])}, "
            f"{_number(micro['recall'])} and {_number(micro['f1'])} · label-ranking average precision "
            f"{_number(figures['label_ranking_average_precision'])}.\n",
            "*By patient alone* is gradient boosting on age, view position and sex, without an image: the floor to "
            f"beat. Against shuffled labels the same scores reach {_number(shuffled['mean_auroc'])} (at most "
            f"{_number(shuffled['highest_mean_auroc'])} in {shuffled['shuffles']} shuffles).\n",
            _picture("auroc") if "auroc" in plots else "",
        ]
    )


def _thresholds(figures: Mapping[str, Any]) -> str:
    points = figures["operating_points"]
    header = ("finding", *(f"{name}: threshold, sens./spec./prec." for name in points))
    rows = [
        (
            finding,
            *(
                f"{_number(told[finding]['threshold'])}, "
                + "/".join(_number(told[finding][key], 2) for key in ("sensitivity", "specificity", "precision"))
                for told in points.values()
            ),
        )
        for finding in figures["findings"]
    ]
    return "## Thresholds\n\nWhat each operating point does to these images:\n\n" + _table(header, rows) + "\n"


def _calibration(figures: Mapping[str, Any]) -> str:
    kinds = {"": "score", "_calibrated": "calibrated", "_at_prevalence": "at the other prevalence"}
    there = [suffix for suffix in kinds if f"ece{suffix}" in figures["macro"]]
    header = ("finding", *(f"{what}, {kinds[suffix]}" for what in ("ECE", "Brier") for suffix in there))
    keys = [f"{what}{suffix}" for what in ("ece", "brier") for suffix in there]
    rows = [(name, *(_number(figure.get(key)) for key in keys)) for name, figure in figures["findings"].items()]
    rows.append(("**mean**", *(_number(figures["macro"].get(key)) for key in keys)))
    said = (
        "A weighted loss inflates scores; probabilities are scores after Platt scaling on validation, and hold at the "
        "prevalence of validation. ECE is over 10 bins of equally many images."
    )
    return f"## Calibration\n\n{said}\n\n{_table(header, rows)}\n"


def _subgroups(figures: Mapping[str, Any]) -> str:
    rows, gaps = [], []
    keys = ("auroc", "sensitivity", "specificity")
    for attribute, report in figures["subgroups"].items():
        for group, told in report["groups"].items():
            counts = (f"{told['images']:,}", f"{told['patients']:,}")
            rows.append((attribute, group, *counts, *(_interval(told, key) for key in keys)))
        for group, told in report["gaps"].items():
            gaps.append(
                (attribute, f"{group} minus {report['reference']}", *(_interval(told, key, "+.3f") for key in keys))
            )
    header = ("AUROC", "sensitivity", "specificity")
    return "\n".join(
        [
            "## Subgroups\n",
            "Means over the findings that a group has both with and without.\n",
            _table(("by", "group", "images", "patients", *header), rows),
            "\nGaps, over the findings that both groups have, paired by patient:\n",
            _table(("by", "gap", *header), gaps),
            "",
        ]
    )


def _localisation(figures: Mapping[str, Any]) -> str:
    if "localisation" not in figures:
        return ""
    model, floor = (figures["localisation"][who] for who in ("model", "mean_box"))
    rows = [
        (
            name,
            str(told["boxes"]),
            *(
                cell
                for key in ("pointing_accuracy", "ap25", "mean_iou")
                for cell in (_interval(told, key), _number(floor["findings"][name][key]))
            ),
        )
        for name, told in model["findings"].items()
    ]
    cells = (
        cell
        for key in ("pointing_accuracy", "ap25", "mean_iou")
        for cell in (_interval(model["mean"], key), _number(floor["mean"][key]))
    )
    rows.append(("**mean**", str(sum(told["boxes"] for told in model["findings"].values())), *cells))
    header = ("finding", "boxes", "pointing accuracy", "floor", "AP25", "floor", "mean IoU", "floor")
    levels = [
        (level, _number(model["mean"]["iou"][level]), _number(model["mean"]["iobb"][level]),
         _number(floor["mean"]["iou"][level]), _number(floor["mean"]["iobb"][level]))
        for level in model["mean"]["iou"]
    ]  # fmt: skip
    return "\n".join(
        [
            "## Localisation\n",
            "Finding maps against the boxes of NIH's radiologists: how often the peak lies in a box of the finding, "
            "average precision of the regions above half of the peak at an IoU of 0.25, and the IoU of the map with "
            "the boxes, over cuts at 0.1 to 0.7 of the peak. The floor always shows the finding's mean box. All boxes "
            "lie in the official test list, so that the form of the map was chosen while looking at some of them.\n",
            _table(header, rows),
            "",
            _table(("cut", "IoU", "IoBB", "floor's IoU", "floor's IoBB"), levels),
            "",
        ]
    )


def _comparison(figures: Mapping[str, Any]) -> str:
    if "comparison" not in figures:
        return ""
    told = figures["comparison"]
    entries = {**told["findings"], "**mean**": told["mean_auroc"]}
    rows = [
        (name, _number(entry["first"]), _number(entry["second"]), _interval(entry, "difference", "+.3f"))
        for name, entry in entries.items()
    ]
    return (
        f"## Beside {told['with']}\n\nAUROC on the {told['images']:,} images that both have scored, paired by "
        f"patient.\n\n{_table(('finding', 'this', 'other', 'difference'), rows)}\n"
    )


def _table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _picture(name: str) -> str:
    return f"![{CAPTIONS[name]}](plots/{name}.png)\n\n{CAPTIONS[name]}.\n"


def _interval(figures: Mapping[str, Any], key: str, form: str = ".3f") -> str:
    value, bounds = figures[key], figures[f"{key}_ci"]
    if value is None or bounds is None:
        return "-"
    return f"{value:{form}} ({bounds[0]:{form}} to {bounds[1]:{form}})"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
