"""What was measured of the model, from the files of its package; nothing is typed in here."""

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

# Where figures lie in a package: beside the released weights in a folder, in a run's folder at its root.
FOLDERS = ("results/", "")
PLOTS = {
    "auroc": "AUROC of each finding with its interval, beside what age, view position and sex alone reach",
    "roc": "ROC curves, and the point at which the threshold lies",
    "calibration": "Reliability before and after calibration, in bins of equally many images",
    "precision_recall": "Precision over recall",
    "confusion": "Confusion matrices at the thresholds",
}
ABSENT = (
    "<div class='absent'><h3>No figures yet</h3><p>This package holds no metrics.json. "
    "<code>python score.py --model . --source SOURCE --output-dir results</code> "
    "measures the model and writes it.</p></div>"
)


class Figures:
    """metrics.json of a package, and its plots; empty where there are none.

    Args:
        pipe: the pipeline whose package is asked; works for a folder and for a Hub id.
    """

    def __init__(self, pipe: Any):
        self._file = pipe.package_file
        self._folder, path = next(
            ((folder, path) for folder in FOLDERS if (path := self._file(f"{folder}metrics.json"))), ("", None)
        )
        self.content: dict[str, Any] = json.loads(path.read_text()) if path else {}

    def of_operating_point(self, name: str, thresholds: dict[str, float]) -> dict[str, dict[str, Any]] | None:
        """{finding: {"sensitivity", "specificity", counts}} as measured with just these thresholds, or None."""
        told = self.content.get("operating_points", {}).get(name)
        same = told and all(abs(told[finding]["threshold"] - value) < 1e-6 for finding, value in thresholds.items())
        return told if same else None

    def measured_on(self) -> str:
        """Where sensitivities and specificities come from, in a sentence; empty where nothing was measured."""
        if not self.content:
            return ""
        return (
            f"Measured on {self.content['images']:,} images of {self.content['patients']:,} patients "
            f"({self.content['split']} split)."
        )

    def page(self) -> str:
        """The figures as HTML: headline, a row a finding, subgroups, plots."""
        if not self.content:
            return ABSENT
        return "".join(
            ["<div class='figures'>", self._headline(), self._findings(), self._subgroups(), self._plots(), "</div>"]
        )

    def _headline(self) -> str:
        told = self.content
        floor = (told.get("floors", {}).get("patient_only") or {}).get("mean_auroc")
        tiles = [
            ("mean AUROC", _number(told["mean_auroc"]), _interval(told.get("mean_auroc_ci"))),
            ("by age, sex and view alone", _number(floor), "the floor to beat"),
            (
                "macro F1",
                _number(told["macro"]["f1"]),
                f"at {told.get('operating_point', 'its thresholds')}".replace("_", " "),
            ),
            ("images", f"{told['images']:,}", f"of {told['patients']:,} patients, {told['split']} split"),
        ]
        cells = "".join(
            f"<div class='tile'><dt>{escape(name)}</dt><dd>{escape(value)}</dd><small>{escape(remark)}</small></div>"
            for name, value, remark in tiles
        )
        return f"<dl class='tiles'>{cells}</dl>"

    def _findings(self) -> str:
        columns = (
            "finding",
            "positives",
            "their patients",
            "AUROC",
            "95 % interval",
            "AP",
            "sensitivity",
            "specificity",
            "threshold",
            "ECE",
        )
        rows = [
            (
                name.replace("_", " "),
                f"{told['positives']:,}",
                f"{told['positive_patients']:,}" if "positive_patients" in told else "-",
                _number(told["auroc"]),
                _interval(told.get("auroc_ci")),
                _number(told.get("average_precision")),
                _number(told.get("recall")),
                _number(told.get("specificity")),
                _number(told.get("threshold")) + ("*" if told.get("few_positives_to_fit") else ""),
                _number(told.get("ece_calibrated", told.get("ece"))),
            )
            for name, told in self.content["findings"].items()
        ]
        return (
            "<h3>Findings</h3>"
            + _table(columns, rows)
            + "<p class='hint'>* fitted on too few positives to be relied on. "
            "AP: average precision. ECE: expected calibration error of the probability. "
            "Intervals resample patients.</p>"
        )

    def _subgroups(self) -> str:
        rows = [
            (
                attribute.replace("_", " "),
                group,
                f"{told['images']:,}",
                *(cell for key in ("auroc", "sensitivity", "specificity") for cell in (_number(told.get(key)),)),
                _interval(told.get("auroc_ci")),
            )
            for attribute, report in self.content.get("subgroups", {}).items()
            for group, told in report["groups"].items()
        ]
        columns = ("by", "group", "images", "AUROC", "sensitivity", "specificity", "interval of AUROC")
        return "<h3>Subgroups</h3>" + _table(columns, rows) if rows else ""

    def _plots(self) -> str:
        found = [(name, self._file(f"{self._folder}plots/{name}.png")) for name in PLOTS]
        pictures = "".join(
            f"<figure><img loading='lazy' alt='{escape(PLOTS[name])}' src='{_data_url(path)}'>"
            f"<figcaption>{escape(PLOTS[name])}</figcaption></figure>"
            for name, path in found
            if path
        )
        return f"<h3>Pictures</h3><div class='plots'>{pictures}</div>" if pictures else ""


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th scope='col'>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><th scope='row'>{escape(row[0])}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        "<div class='table' tabindex='0' role='region' aria-label='Figures'>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(bounds: list[float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def _data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
