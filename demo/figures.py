"""Show what was measured of the model, from the files of its package."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from engine_cxrfpn import Engine
from gate_weights_cxrfpn import MEASURED

# Where a package keeps its figures: the released one in a folder, a run at its root.
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
        engine: the model whose package is asked; works for a folder and for a Hub id.
    """

    def __init__(self, engine: Engine):
        self._file = engine.package_file
        self._folder, path = next(
            ((folder, path) for folder in FOLDERS if (path := self._file(f"{folder}metrics.json"))), ("", None)
        )
        self.content: dict[str, Any] = json.loads(path.read_text()) if path else {}

    def of_operating_point(self, name: str, thresholds: dict[str, float]) -> dict[str, dict[str, Any]] | None:
        """Return {finding: {"sensitivity", "specificity", counts}} as measured with just these thresholds, or None."""
        rows = self.content.get("operating_points", {}).get(name)
        same = rows and all(abs(rows[finding]["threshold"] - value) < 1e-6 for finding, value in thresholds.items())
        return rows if same else None

    def measured_on(self) -> str:
        """Return a sentence that says where sensitivities and specificities come from, "" where there are none."""
        if not self.content:
            return ""
        return (
            f"Measured on {self.content['images']:,} images of {self.content['patients']:,} patients "
            f"({self.content['split']} split)."
        )

    def page(self) -> str:
        """Return the figures as HTML: headline, a row a finding, subgroups, plots."""
        if not self.content:
            return ABSENT
        return "".join(
            ["<div class='figures'>", self._headline(), self._findings(), self._subgroups(), self._plots(), "</div>"]
        )

    def _headline(self) -> str:
        content = self.content
        baseline = (content.get("baselines", {}).get("patient_only") or {}).get("mean_auroc")
        tiles = [
            ("mean AUROC", _number(content["mean_auroc"]), _interval(content.get("mean_auroc_ci"))),
            ("by age, sex and view alone", _number(baseline), "the baseline to beat"),
            (
                "any finding",
                _number((content.get("any_finding") or {}).get("auroc")),
                "AUROC of whether there is one",
            ),
            (
                "macro F1",
                _number(content["macro"]["f1"]),
                f"at {content.get('operating_point', 'its thresholds')}".replace("_", " "),
            ),
            ("images", f"{content['images']:,}", f"of {content['patients']:,} patients, {content['split']} split"),
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
                f"{row['positives']:,}",
                f"{row['positive_patients']:,}" if "positive_patients" in row else "-",
                _number(row["auroc"]),
                _interval(row.get("auroc_ci")),
                _number(row.get("average_precision")),
                _number(row.get("recall")),
                _number(row.get("specificity")),
                _number(row.get("threshold")) + ("*" if row.get("few_positives_to_fit") else ""),
                _number(row.get("ece_calibrated", row.get("ece"))),
            )
            for name, row in self.content["findings"].items()
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
                f"{row['images']:,}",
                *(cell for key in ("auroc", "sensitivity", "specificity") for cell in (_number(row.get(key)),)),
                _interval(row.get("auroc_ci")),
            )
            for attribute, report in self.content.get("subgroups", {}).items()
            for group, row in report["groups"].items()
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


def describe_gate() -> str:
    """Return what was measured of the gate, in a few sentences."""
    rejected: dict[str, float] = MEASURED["rejected"]  # type: ignore[assignment]  # beside it stands a number
    missed = ", ".join(f"{kind} {1 - share:.0%}" for kind, share in rejected.items() if share < 0.95)
    return (
        "What does not look like an upright frontal chest radiograph of an adult is greyed. "
        f"Of test radiographs {MEASURED['kept']:.1%} passed; of pictures that should not, at most 5 % of each kind"
        + (f", but more of these: {missed}." if missed else ".")
    )


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
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
