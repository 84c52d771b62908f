"""Write the tables of MODEL_CARD.md, README.md and two pages of docs/ from measured figures: python -m tools.model_card

The text around the tables is written by hand; a table stands between `<!-- name -->` and `<!-- /name -->`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from cxrfpn.evaluation.card_calls import three_way_table
from cxrfpn.evaluation.figures import AnyFindingFigures, Estimate, Figures, FindingFigures, LocalisationFigures
from cxrfpn.evaluation.markdown import fill
from tools.ablation import MeasuredRows
from tools.ablation import table as ablation_table
from tools.fit_gate import GateFigures

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
METRICS, ABLATION = RESULTS / "metrics.json", RESULTS / "ablation.json"
# Of the gate, which does not depend on the model.
GATE = RESULTS / "gate.json"
SPEED = ROOT / "benchmarks" / "results.json"
# The benchmarks of what a user of a trained model waits for.
SPEED_OF = ("reading", "inference", "archive", "deployment")
DOCS = ROOT / "docs"
PAGES = (ROOT / "MODEL_CARD.md", ROOT / "README.md", DOCS / "engines.md", DOCS / "predicting-an-archive.md")


class _Ratio(TypedDict):
    what: str
    ratio: float
    aim: float
    remark: str


class Benchmark(TypedDict):
    """A benchmark as `python -m benchmarks` writes it, without its machine."""

    rows: list[_Ratio]


def tables(
    figures: Figures,
    ablation: Mapping[str, MeasuredRows],
    measured_gate: GateFigures,
    benchmarks: Mapping[str, Benchmark],
) -> dict[str, str]:
    """Return the table of each marker.

    Args:
        figures: metrics.json as score.py writes it, of a source with sharp and blurred images.
        ablation: ablation.json as `tools.ablation` writes it.
        measured_gate: gate.json as `tools.fit_gate` writes it.
        benchmarks: results.json as `python -m benchmarks` writes it.
    """
    any_figures, three_way = figures["any_finding"], figures["three_way"]
    assert any_figures is not None and three_way is not None  # the released thresholds.json has both
    return {
        "gate": gate(measured_gate),
        "headline": headline(figures, ablation["parts"]),
        "findings": findings(figures),
        "any-finding": any_finding(any_figures),
        "three-way": three_way_table(three_way),
        "maps": maps(figures["localisation"]),
        "release": ablation_table(ablation["release"]),
        "parts": ablation_table(ablation["parts"]),
        "speed": speed(benchmarks),
        "archive": archive(benchmarks["archive"]),
    }


def speed(benchmarks: Mapping[str, Benchmark]) -> str:
    """Return the ratios that were measured, with what each compares, its aim and its times."""
    rows = [
        f"| {row['what']} | {row['ratio']:.2f} | {row['aim']:g} | {row['remark'].strip('()')} |"
        for name in SPEED_OF
        for row in benchmarks[name]["rows"]
    ]
    return "\n".join(["| ours / the other | ratio | aim | times |", "|---|---:|---:|---|", *rows])


def archive(benchmark: Benchmark) -> str:
    """Return what ten million radiographs cost at each rate that was measured on one core."""
    lines = ["| ten million | images a second and core | core-hours | on 64 cores |", "|---|---|---|---|"]
    for row in benchmark["rows"]:
        rate, _, size = row["remark"].strip("()").partition(" / ")
        hours = 10**7 / int(rate) / 3600
        what = f"{row['what'].partition(' / ')[0].removeprefix('an archive of ')}, {size.partition(' at ')[2]}"
        lines.append(f"| {what} | {rate} | {hours:.0f} | {60 * hours / 64:.0f} minutes |")
    return "\n".join(lines)


def headline(figures: Figures, ablation: MeasuredRows) -> str:
    """Return the mean AUROC beside its baselines, on sharp and on all test radiographs."""
    sharp = figures["subgroups"]["source"]["groups"]["sharp"]
    patient, pixels = (with_interval(ablation["rows"][name], "mean_auroc") for name in ("patient-only", "pixels"))
    return "\n".join(
        [
            f"| mean AUROC of the 14 findings | {sharp['images']:,} sharp test radiographs of {sharp['patients']:,} "
            f"patients | all {figures['images']:,} |",
            "|---|---|---|",
            f"| **this model** | **{with_interval(sharp)}** | {with_interval(figures, 'mean_auroc')} |",
            f"| age, view position and sex alone | {patient} | |",
            f"| these and 150 principal components of 48 x 48 pixels | {pixels} | |",
        ]
    )


def findings(figures: Figures) -> str:
    """Return AUROC and calls of each finding."""
    youden, images = figures["operating_points"]["youden"], figures["images"]
    rows = [
        f"| {name.replace('_', ' ')}{' *' if row['few_positives_to_fit'] else ''} | {with_interval(row)} "
        f"| {youden[name]['true_positives']:,} of {row['positives']:,}{_of_patients(row)} "
        f"| {youden[name]['false_positives']:,} of {images - row['positives']:,} |"
        for name, row in figures["findings"].items()
    ]
    return "\n".join(["| finding | AUROC | positives called | negatives called |", "|---|---|---:|---:|", *rows])


def any_finding(figure: AnyFindingFigures) -> str:
    """Return AUROC and calibration of the answer to whether there is any finding."""
    images = figure["positives"] + figure["negatives"]
    return "\n".join(
        [
            "| any finding | |",
            "|---|---|",
            f"| AUROC | {with_interval(figure)} |",
            f"| test radiographs with a finding | {figure['positives']:,} of {images:,} |",
            f"| expected calibration error of its probability | {figure['ece_calibrated']:.3f} |",
        ]
    )


def gate(figures: GateFigures) -> str:
    """Return how well the gate tells each kind of picture from radiographs."""
    rows = [
        f"| {kind} | {row['pictures']:,} of {row['groups']:,} | {with_interval(row)} "
        f"| {_shares(row, 'rejected')} | {_shares(row, 'rejected_at_kept')} |"
        for kind, row in figures["kinds"].items()
    ]
    head = "| kind | pictures, of patients or files | AUROC | rejected | where 99 % of radiographs pass |"
    return "\n".join([head, "|---|---:|---|---|---|", *rows])


def _shares(row: Mapping[str, object], name: str) -> str:
    estimate = Estimate.of(row, name)
    return estimate.text(".1%") if estimate.bounds else f"{estimate.value:.1%}"


def maps(localisation: LocalisationFigures) -> str:
    """Return how often maps point into a box, beside the blind map."""
    return "\n".join(
        [
            "| map | pointing accuracy |",
            "|---|---|",
            f"| this model | {with_interval(localisation['model']['mean'], 'pointing_accuracy')} |",
            f"| blind | {with_interval(localisation['mean_box']['mean'], 'pointing_accuracy')} |",
        ]
    )


def with_interval(figures: Mapping[str, object], name: str = "auroc") -> str:
    """Return "value (low to high)" with three digits, or "undefined"."""
    return Estimate.of(figures, name).text(undefined="undefined", no_interval="too few patients for an interval")


def _of_patients(row: FindingFigures) -> str:
    """Return the patients that a finding's positives belong to; older metrics.json files lack them."""
    return f" ({row['positive_patients']:,} patients)" if "positive_patients" in row else ""


def main() -> None:
    """Run the command."""
    contents = tables(*(json.loads(path.read_text()) for path in (METRICS, ABLATION, GATE, SPEED)))
    for page in PAGES:
        page.write_text(fill(page.read_text(), contents))
        print(f"written: {page}")


if __name__ == "__main__":
    main()
