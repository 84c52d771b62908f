"""The sections of a card that show figures: tables in markdown, all from metrics.json."""

from collections.abc import Sequence
from typing import Literal

from cxrfpn.evaluation.figures import Estimate, Figures, PatientBaseline
from cxrfpn.evaluation.intervals import FEWEST_PATIENTS
from cxrfpn.evaluation.markdown import number, table

CAPTIONS = {
    "auroc": "AUROC of each finding with its interval, beside what age, view position and sex alone reach",
    "roc": "ROC curves, and the point at which the threshold lies",
    "precision_recall": "Precision over recall",
    "confusion": "Confusion matrices at the thresholds",
    "calibration": "Reliability before and after calibration, in bins of equally many images",
    "histograms": "Scores of images with and without each finding",
    "examples": "Test radiographs with true and called findings (blue: all right)",
}

# The calibration errors, and the heads of their columns.
ERRORS: dict[
    Literal["ece", "ece_calibrated", "ece_at_prevalence", "brier", "brier_calibrated", "brier_at_prevalence"], str
] = {
    "ece": "ECE, score",
    "ece_calibrated": "ECE, calibrated",
    "ece_at_prevalence": "ECE, at the other prevalence",
    "brier": "Brier, score",
    "brier_calibrated": "Brier, calibrated",
    "brier_at_prevalence": "Brier, at the other prevalence",
}
# The figures that tables show of calls, of operating points, and of maps.
SHOWN: tuple[Literal["average_precision", "f1", "precision", "recall", "specificity"], ...] = (
    "average_precision", "f1", "precision", "recall", "specificity",
)  # fmt: skip
OF_POINTS: tuple[Literal["sensitivity", "specificity", "precision"], ...] = ("sensitivity", "specificity", "precision")
OF_MAPS: tuple[Literal["pointing_accuracy", "ap25", "mean_iou"], ...] = ("pointing_accuracy", "ap25", "mean_iou")


def results_section(figures: Figures, plots: Sequence[str]) -> str:
    """Every finding, beside the baselines of patient data alone and of shuffled labels."""
    baselines = figures["baselines"]
    patient = baselines.get("patient_only")
    rows = [
        (
            name,
            f"{figure['positives']:,}",
            f"{figure['positive_patients']:,}",
            Estimate.of(figure, "auroc").text(),
            number(patient and patient["findings"].get(name)),
            *(number(figure[key]) for key in SHOWN),
            number(figure["threshold"]) + ("*" if figure["few_positives_to_fit"] else ""),
        )
        for name, figure in figures["findings"].items()
    ]
    macro = figures["macro"]
    rows.append(
        (
            "**mean**",
            "",
            "",
            Estimate.of(figures, "mean_auroc").text(),
            number(patient and patient["mean_auroc"]),
            *(number(macro[key]) for key in SHOWN),
            "",
        )
    )
    header = ("finding", "positives", "their patients", "AUROC (95 % interval)", "by patient alone", "AP", "F1",
              "precision", "recall", "specificity", "threshold")  # fmt: skip
    micro, shuffled = figures["micro"], baselines["shuffled_labels"]
    return "\n".join(
        [
            "## Results\n",
            table(header, rows),
            f"\nExact match {number(figures['exact_match'])} · Hamming loss {number(figures['hamming_loss'])} · "
            f"accuracy {number(figures['accuracy'])} · micro precision, recall and F1 {number(micro['precision'])}, "
            f"{number(micro['recall'])} and {number(micro['f1'])} · label-ranking average precision "
            f"{number(figures['label_ranking_average_precision'])}.\n",
            f"Where fewer than {FEWEST_PATIENTS} patients have a finding, or lack it, no interval is given: it would "
            "be too narrow.\n",
            "*By patient alone* is gradient boosting on age, view position and sex, without an image: the baseline to "
            f"beat{_cross_fitted(patient)}. Against shuffled labels the same scores reach "
            f"{number(shuffled['mean_auroc'])} (at most {number(shuffled['highest_mean_auroc'])} in "
            f"{shuffled['shuffles']} shuffles).\n",
            picture("auroc") if "auroc" in plots else "",
        ]
    )


def thresholds_section(figures: Figures) -> str:
    """Tabulate what each operating point does."""
    points = figures["operating_points"]
    header = ("finding", *(f"{name}: threshold, sens./spec./prec." for name in points))
    rows = [
        (
            finding,
            *(
                f"{number(point[finding]['threshold'])}, "
                + "/".join(number(point[finding][key], 2) for key in OF_POINTS)
                for point in points.values()
            ),
        )
        for finding in figures["findings"]
    ]
    lines = ["## Thresholds\n", *_chosen(figures), "What each operating point does to these images:\n"]
    lines += [table(header, rows), ""]
    for point, marks in figures["marked"].items():
        for reason in dict.fromkeys(marks.values()):
            names = ", ".join(name for name, why in marks.items() if why == reason)
            lines.append(f"- `{point}`, {names}: {reason}.")
    return "\n".join(lines) + "\n"


def _chosen(figures: Figures) -> list[str]:
    """How the default operating point was chosen, where thresholds.json says so."""
    if not (chosen := figures["default_chosen_by"]):
        return []
    means = ", ".join(f"`{point}` {number(mean)}" for point, mean in chosen["macro_f1"].items())
    return [f"The default is `{figures['operating_point']}`, chosen by the {chosen['rule']}: {means}.\n"]


def calibration_section(figures: Figures) -> str:
    """How far scores, and probabilities, are from how often a finding is there."""
    keys = [key for key in ERRORS if key in figures["macro"]]
    header = ("finding", *(ERRORS[key] for key in keys))
    rows = [(name, *(number(figure.get(key)) for key in keys)) for name, figure in figures["findings"].items()]
    count = figures["macro"]["calibrated_findings"]
    rows.append((f"**mean of {count}**", *(number(figures["macro"].get(key)) for key in keys)))
    said = (
        "A weighted loss inflates scores; probabilities are scores after Platt scaling on validation, and hold at the "
        "prevalence of validation. ECE is over 10 bins of equally many images. Means are over the "
        "findings that have every figure."
    )
    return f"## Calibration\n\n{said}\n\n{table(header, rows)}\n"


def subgroups_section(figures: Figures) -> str:
    """Tabulate groups of patients and images, and the gaps between them."""
    rows, gaps = [], []
    keys = ("auroc", "sensitivity", "specificity")
    for attribute, report in figures["subgroups"].items():
        for group, row in report["groups"].items():
            counts = (f"{row['images']:,}", f"{row['patients']:,}")
            rows.append((attribute, group, *counts, *(Estimate.of(row, key).text() for key in keys)))
        for group, gap in report["gaps"].items():
            gaps.append(
                (
                    attribute,
                    f"{group} minus {report['reference']}",
                    *(Estimate.of(gap, key).text("+.3f") for key in keys),
                )
            )
    header = ("AUROC", "sensitivity", "specificity")
    return "\n".join(
        [
            "## Subgroups\n",
            "Means over the findings that a group has both with and without.\n",
            table(("by", "group", "images", "patients", *header), rows),
            "\nGaps, over the findings that both groups have, paired by patient:\n",
            table(("by", "gap", *header), gaps),
            "",
        ]
    )


def localisation_section(figures: Figures) -> str:
    """Tabulate finding maps against boxes; empty where there are no boxes."""
    if "localisation" not in figures:
        return ""
    model, baseline = figures["localisation"]["model"], figures["localisation"]["mean_box"]
    rows = [
        (
            name,
            str(figure["boxes"]),
            str(figure["patients"]),
            *(
                cell
                for key in OF_MAPS
                for cell in (Estimate.of(figure, key).text(), number(baseline["findings"][name][key]))
            ),
        )
        for name, figure in model["findings"].items()
    ]
    cells = (
        cell for key in OF_MAPS for cell in (Estimate.of(model["mean"], key).text(), number(baseline["mean"][key]))
    )
    rows.append(("**mean**", str(sum(figure["boxes"] for figure in model["findings"].values())), "", *cells))
    header = (
        "finding",
        "boxes",
        "patients",
        "pointing accuracy",
        "baseline",
        "AP25",
        "baseline",
        "mean IoU",
        "baseline",
    )
    levels = [
        (level, number(model["mean"]["iou"][level]), number(model["mean"]["iobb"][level]),
         number(baseline["mean"]["iou"][level]), number(baseline["mean"]["iobb"][level]))
        for level in model["mean"]["iou"]
    ]  # fmt: skip
    return "\n".join(
        [
            "## Localisation\n",
            "Finding maps against the boxes of NIH's radiologists: how often the peak lies in a box of the finding, "
            "average precision of the regions above half of the peak at an IoU of 0.25, and the IoU of the map with "
            "the boxes, over cuts at 0.1 to 0.7 of the peak. The baseline always shows the finding's mean box. All "
            "boxes lie in the official test list, so that the form of the map was chosen while looking at some of"
            " them.\n",
            table(header, rows),
            "",
            table(("cut", "IoU", "IoBB", "baseline's IoU", "baseline's IoBB"), levels),
            "",
        ]
    )


def other_labels_section(figures: Figures) -> str:
    """Tabulate the same scores by the labels of another table; empty where none is given."""
    if "other_labels" not in figures:
        return ""
    other = figures["other_labels"]
    rows = [
        (
            f"{name} (any of {', '.join(label['members'])})" if label["members"] else name,
            f"{label['positives']:,}",
            f"{label['negatives']:,}",
            Estimate.of(label, "auroc").text(),
            Estimate.of(label, "auroc_own").text(),
        )
        for name, label in other["labels"].items()
    ]
    header = ("label", "positives", "negatives", "AUROC by these labels", "AUROC by the source's own")
    notes = "".join(f" {note}." for note in other["notes"])
    return (
        f"## By the labels of {other['table']}\n\nThe same scores on the {other['images']:,} images "
        f"({other['patients']:,} patients) that this table labels; both columns are over the same images.{notes}\n\n"
        f"{table(header, rows)}\n"
    )


def comparison_section(figures: Figures) -> str:
    """Another system beside this one; nothing where there is none."""
    if "comparison" not in figures:
        return ""
    comparison = figures["comparison"]
    entries = {**comparison["findings"], "**mean**": comparison["mean_auroc"]}
    rows = [
        (name, number(entry["first"]), number(entry["second"]), Estimate.of(entry, "difference").text("+.3f"))
        for name, entry in entries.items()
    ]
    return (
        f"## Beside {comparison['with']}\n\nAUROC on the {comparison['images']:,} images that both have scored, paired "
        f"by patient.\n\n{table(('finding', 'this', 'other', 'difference'), rows)}\n"
    )


def _cross_fitted(patient: PatientBaseline | None) -> str:
    folds = patient and patient["folds"]
    return f" (fitted on these images, in {folds} folds of patients)" if folds else ""


def picture(name: str) -> str:
    """Show a plot of the run, with its caption."""
    return f"![{CAPTIONS[name]}](plots/{name}.png)\n\n{CAPTIONS[name]}.\n"
