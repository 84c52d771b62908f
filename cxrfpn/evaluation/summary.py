"""A run's figures in a few lines, for the terminal."""

from collections.abc import Mapping

import numpy as np

from cxrfpn.evaluation.figures import Estimate, Figures
from cxrfpn.evaluation.intervals import FEWEST_PATIENTS
from cxrfpn.evaluation.predictions import Scored
from cxrfpn.evaluation.thresholds import FEWEST_POSITIVES

UNDEFINED = "undefined"


def summary_lines(figures: Figures, scored: Scored) -> list[str]:
    """Return the lines about the figures of a scored split, as metrics.json holds them."""
    lines = [
        f"{figures['system']} on {figures['source']}, {figures['split']}: {scored.coverage()}",
        f"mean AUROC {_with_interval(figures, 'mean_auroc')} over {figures['resamples']} resamples of "
        f"{figures['resampled']}; macro F1 {_number(figures['macro']['f1'])}; "
        f"exact match {_number(figures['exact_match'])}",
        f"  {'finding':<20}{'AUROC':>7}  {'95 % interval':<16}{'AP':>7}{'F1':>7}{'positives':>11}{'patients':>10}",
    ]
    for finding, figure in figures["findings"].items():
        if figure["auroc"] is None:
            lines.append(f"  {finding:<20}undefined: {figure['positives']} positives, {figure['negatives']} negatives")
            continue
        bounds = "too few patients"
        if figure["auroc_ci"] is not None:
            bounds = "{:.3f} to {:.3f}".format(*figure["auroc_ci"])
        lines.append(
            f"  {finding:<20}{figure['auroc']:>7.3f}  {bounds:<16}{figure['average_precision']:>7.3f}"
            f"{figure['f1']:>7.3f}{figure['positives']:>11,}{figure['positive_patients']:>10,}"
        )
    if figures["any_finding"]:
        lines.append(f"any finding: AUROC {_with_interval(figures['any_finding'], 'auroc')}")
    if baseline := figures["baselines"].get("patient_only"):
        lines.append(f"age, view and sex alone: mean AUROC {_number(baseline['mean_auroc'])}")
    if "localisation" in figures:
        model, blind = (
            summary["mean"]["pointing_accuracy"]
            for summary in (figures["localisation"]["model"], figures["localisation"]["mean_box"])
        )
        lines.append(f"pointing accuracy: {model:.3f} (always at the mean box: {blind:.3f})")
    if other := figures.get("other_labels"):
        lines.append(f"by the labels of {other['table']}, {other['images']} images:")
        for name, label in other["labels"].items():
            lines.append(f"  {name:<20}{_with_interval(label, 'auroc')}, {label['positives']} positives")
    if comparison := figures.get("comparison"):
        mean = comparison["mean_auroc"]
        lines.append(
            f"minus {comparison['with']} on {comparison['images']} images: {_with_interval(mean, 'difference')}"
        )
    if few := [name for name, figure in figures["findings"].items() if figure["few_positives_to_fit"]]:
        lines.append(
            f"thresholds of {', '.join(few)} were fitted on fewer than {FEWEST_POSITIVES} positives, or on positives "
            f"of fewer than {FEWEST_PATIENTS} patients"
        )
    if (fit := figures.get("fit")) and fit["below"]:
        lines.append(
            f"{fit['below']} of {fit['images']} images do not look like upright frontal chest radiographs of adults, "
            f"{', '.join(fit['lowest'])} the least"
        )
    if figures.get("unreadable"):
        names = list(figures["unreadable"])
        lines.append(f"{len(names)} images could not be read and are left out, {names[0]} the first")
    return lines


def _number(value: float | None) -> str:
    return UNDEFINED if value is None or np.isnan(value) else f"{value:.3f}"


def _with_interval(figures: Mapping[str, object], name: str) -> str:
    return Estimate.of(figures, name).text(undefined=UNDEFINED)
