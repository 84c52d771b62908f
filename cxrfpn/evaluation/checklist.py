"""CLAIM 2024 and TRIPOD+AI, filled in as far as a run's files can answer them."""

import string
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml

from cxrfpn.evaluation.figures import Bounds, Figures

FORMS = ("claim-2024", "tripod-ai")
FOLDER = Path(__file__).parent / "checklists"
OPEN = "**open**"
LIBRARIES = ("torch", "torchvision", "transformers", "accelerate", "datasets", "scikit-learn", "numpy")

# Figures that answers name as they are, and counts.
NAMES: tuple[Literal["system", "source", "split", "protocol", "resampled", "operating_point"], ...] = (
    "system", "source", "split", "protocol", "resampled", "operating_point",
)  # fmt: skip
COUNTS: tuple[Literal["images", "patients", "resamples"], ...] = ("images", "patients", "resamples")


def write_checklists(figures: Figures, metadata: pd.DataFrame, recipe: str | None) -> tuple[str, list[str]]:
    """Fill both forms.

    Args:
        figures: as metrics.json holds them.
        metadata: of the images that were scored.
        recipe: the text of the model's recipe.yaml, where it has one.

    Returns:
        a page in Markdown, and for each form a line that counts what is answered.
    """
    facts = gather_facts(figures, metadata, recipe)
    sections, counts = [], []
    for form in FORMS:
        content = yaml.safe_load((FOLDER / f"{form}.yaml").read_text())
        answers = [_answer(item.get("answer"), facts) for item in content["items"]]
        answered = sum(answer is not None for answer in answers)
        counts.append(f"{content['name']}: {answered} of {len(answers)} items answered")
        rows = [
            f"| {item['item']} | {item['asks']} | {_cell(answer) or OPEN} |"
            for item, answer in zip(content["items"], answers, strict=True)
        ]
        head = f"## {content['name']}\n\n{content['source']} · {answered} of {len(answers)} items answered\n"
        sections.append("\n".join([head, "| item | asks for | answer |", "| --- | --- | --- |", *rows, ""]))
    intro = (
        f"# Reporting checklists of {figures['system']}\n\nFilled from the files of this run. An answer is a draft: "
        f"check it against the study. {OPEN}: the files do not say.\n"
    )
    return "\n".join([intro, *sections]), counts


def gather_facts(figures: Figures, metadata: pd.DataFrame, recipe: str | None) -> dict[str, str]:
    """Return what the answers name, as text; what the run does not say is left out."""
    coverage, fitted = figures["coverage"], figures["fitted_on"]
    facts: dict[str, object] = {name: figures[name] for name in NAMES}
    facts |= {name: f"{figures[name]:,}" for name in COUNTS}
    baseline = figures["baselines"].get("patient_only")
    facts |= {
        # What is true of our packages is not said of anyone's predictions.
        "package": figures["system"] if figures["is_model"] else None,
        "unreadable": len(figures.get("unreadable", ())),
        "without_scores": coverage["without_scores"],
        "subgroups": ", ".join(figures["subgroups"]) or None,
        "mean_auroc": _with_interval(figures["mean_auroc"], figures["mean_auroc_ci"]),
        "characteristics": _characteristics(metadata, figures),
        "unknown_age": int(metadata["age"].isna().sum()),
        "unknown_sex": int(metadata["sex"].isna().sum()),
        "unknown_view": int(metadata["view_position"].isna().sum()),
        "unknown_labels": _unknown_labels(figures),
        "disjoint": _disjoint(figures["protocol"], figures["split"]),
        "train_images": baseline["fitted_on"] if baseline and not baseline["folds"] else None,
        "software": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "fitted_images": fitted.get("images"),
        "fitted_dataset": fitted.get("dataset"),
        "fitted_split": fitted.get("split"),
        "weights_digest": (figures.get("weights_digest") or fitted.get("weights_digest") or "")[:12] or None,
        "shift": _shift(figures),
    }
    if localisation := figures.get("localisation"):
        model, blind = localisation["model"], localisation["mean_box"]
        facts |= {
            "boxes": sum(finding["boxes"] for finding in model["findings"].values()),
            "pointing": f"{model['mean']['pointing_accuracy']:.3f}",
            "pointing_baseline": f"{blind['mean']['pointing_accuracy']:.3f}",
        }
    if other := figures.get("other_labels"):
        facts |= {"other_images": other["images"], "other_table": other["table"]}
    facts |= _recipe_facts(yaml.safe_load(recipe) if recipe else None)
    return {name: str(value) for name, value in facts.items() if value is not None}


def _recipe_facts(recipe: Mapping[str, Any] | None) -> dict[str, object]:
    if not recipe:
        return {}
    plain = ("stored_size", "no_finding_share", "patient_dropout", "backbone_weights", "optimizer", "learning_rate",
             "batch_size", "seed", "choose_by")  # fmt: skip
    loss = recipe.get("loss") or {}
    cycles = [
        f"{cycle.get('epochs')} epochs at {cycle.get('image_size')} pixels" for cycle in recipe.get("cycles") or ()
    ]
    return {
        **{name: recipe.get(name) for name in plain},
        "backbone": (recipe.get("network") or {}).get("backbone", "DenseNet-121"),
        "cycles": ", ".join(cycles) or None,
        "pos_weight": loss.get("pos_weight"),
        "teachers": len(loss.get("teachers") or ()) or "no",
    }


def _answer(template: str | None, facts: Mapping[str, str]) -> str | None:
    if template is None:
        return None
    names = {name for _, name, _, _ in string.Formatter().parse(template) if name}
    return template.format_map(facts) if names <= set(facts) else None


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


def _with_interval(value: float | None, bounds: Bounds | None) -> str | None:
    if value is None or np.isnan(value):
        return None
    return f"{value:.3f}" + (f" (95 % interval {bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else "")


def _characteristics(metadata: pd.DataFrame, figures: Figures) -> str:
    ages = metadata["age"].dropna()
    parts = []
    if len(ages):
        low, middle, high = ages.quantile([0.25, 0.5, 0.75])
        parts.append(f"age {middle:.0f} years (quartiles {low:.0f} to {high:.0f})")
    for field, names in (("sex", ("F", "M")), ("view_position", ("PA", "AP"))):
        counts = [(metadata[field] == name).sum() for name in names]
        if sum(counts):
            parts.append(", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True)))
    ill = [f"{name} {figure['positives']:,}" for name, figure in figures["findings"].items() if figure["positives"]]
    return "; ".join([*parts, f"images with {', '.join(ill)}"] if ill else parts)


def _unknown_labels(figures: Figures) -> int:
    known = sum(figure["positives"] + figure["negatives"] for figure in figures["findings"].values())
    return figures["images"] * len(figures["findings"]) - known


def _disjoint(protocol: str, split: str) -> str | None:
    if split == "all":
        return None
    if protocol == "report":
        return "Images: a patient may be in several partitions, which flatters the figures."
    return f"Patients: all images of a patient are in one partition (protocol {protocol})."


def _shift(figures: Figures) -> str | None:
    """How often findings are there in the scored images, and were there where thresholds were fitted."""
    fitted = figures["fitted_on"]
    if not fitted.get("images") or not fitted.get("positives"):
        return None
    shares = [
        f"{name} {fitted['positives'][name] / fitted['images']:.1%} and {figure['positives'] / known:.1%}"
        for name, figure in figures["findings"].items()
        if name in fitted["positives"] and (known := figure["positives"] + figure["negatives"])
    ]
    return f"Share of images where thresholds were fitted, and here: {', '.join(shares)}." if shares else None
