"""One command's work: run or read a system, score it, and write figures, predictions, pictures and a card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrfpn.choices import GUARANTEE
from cxrfpn.data.cohort import CohortProtocol, OfficialProtocol, protocol_name
from cxrfpn.data.label_tables import LabelTable
from cxrfpn.data.schema import UNKNOWN_COLUMN, Source
from cxrfpn.evaluation.card import write_card
from cxrfpn.evaluation.checklist import write_checklists
from cxrfpn.evaluation.figures import Figures, LocalisationFigures
from cxrfpn.evaluation.fitting import fit_thresholds, portable
from cxrfpn.evaluation.localisation import LEVELS, Case, point_at_mean_box, summarise
from cxrfpn.evaluation.other_labels import measure_by_table
from cxrfpn.evaluation.plots import save_plots
from cxrfpn.evaluation.predictions import Scored, match, read_predictions
from cxrfpn.evaluation.running import run_model
from cxrfpn.evaluation.scoring import (
    Settings,
    compare,
    findings_table,
    probabilities,
    read_thresholds,
    score,
    select_split,
)
from cxrfpn.evaluation.summary import summary_lines
from cxrfpn.evaluation.thresholds import MIN_PRECISION
from cxrfpn.files import clear_unfinished, write_atomically, write_text
from engine_cxrfpn import Engine
from thresholds_cxrfpn import Thresholds, ThresholdsContent

METRICS, PREDICTIONS, THRESHOLDS, CARD = "metrics.json", "predictions.parquet", "thresholds.json", "README.md"
CHECKLIST = "checklist.md"
RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class ScoreRequest:
    """What is scored against: a source, one of its splits under a protocol, and how figures are made.

    With `fit` thresholds and calibration are fitted on the split first, which must not hold test images;
    `minimum_precision` is that of their precision constraint and `guarantee` that of three-way calls, or None for the
    one that the model was fitted with.
    `labels` are another table's, by which the same scores are measured as well.
    """

    source: Source
    split: str
    protocol: CohortProtocol = field(default_factory=OfficialProtocol)
    settings: Settings = field(default_factory=Settings)
    fit: bool = False
    minimum_precision: float | None = None
    guarantee: float | None = None
    labels: LabelTable | None = None


@dataclass(frozen=True)
class Report:
    """A system's figures on a split, and what pictures are drawn from.

    `fitted` is a new thresholds.json, `recipe` the text of the model's.
    """

    figures: Figures
    scored: Scored
    probabilities: NDArray[np.float64] | None
    examples: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    fitted: ThresholdsContent | None = None
    recipe: str | None = None

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        return "\n".join(summary_lines(self.figures, self.scored))


def score_model(engine: Engine, request: ScoreRequest, batch_size: int = 16, name: str | None = None) -> Report:
    """Run a model over a split, with a progress bar, and score it; where images have boxes, its maps too.

    Args:
        engine: the model and its thresholds.
        request: what it is scored against.
        batch_size: radiographs at once.
        name: what the card calls the model; by default its Hub id, or its folder's name.

    Raises:
        SourceError: the split is empty, or none of its images can be read.
    """
    metadata = request.source.metadata()
    rows = select_split(metadata, request.split, request.protocol)
    run = run_model(engine, request.source, rows, batch_size, request.settings.seed)
    scored = match(run.scores, rows, metadata, "the model", engine.findings)
    package = Path(engine.source)
    name = name or (package.resolve().name if package.is_dir() else str(package))
    thresholds, fitted = engine.thresholds, None
    digest = engine.weights_digest()
    if request.fit:
        thresholds, fitted = _fit(scored, request, thresholds, digest, engine.pixels())
    figures = _figures(scored, thresholds, request, metadata, name, True)
    figures["weights_digest"] = digest
    figures["unreadable"] = run.unreadable
    if run.cases:
        figures["localisation"] = localise(run.cases, request.settings)
    recipe = package / RECIPE
    return Report(
        figures,
        scored,
        probabilities(scored, thresholds, request.settings),
        run.examples,
        fitted,
        recipe.read_text() if recipe.exists() else None,
    )


def score_predictions(paths: Sequence[Path], request: ScoreRequest, thresholds: Path | None = None) -> Report:
    """Score one table of predictions; with a second one, say how the first differs from it.

    Args:
        paths: one or two files that `read_predictions` reads.
        thresholds: a thresholds.json that belongs to the first; 0.5 for every finding without it.

    Raises:
        PredictionsError: a table that cannot be used, or without an image of the split.
        SourceError: the split is empty.
        ThresholdsError: thresholds that cannot be used.
    """
    metadata = request.source.metadata()
    rows = select_split(metadata, request.split, request.protocol)
    systems = [match(read_predictions(path), rows, metadata, str(path)) for path in paths]
    points, fitted = read_thresholds(thresholds), None
    if request.fit:
        points, fitted = _fit(systems[0], request, points)
    figures = _figures(systems[0], points, request, metadata, paths[0].name, False)
    if len(systems) == 2:
        figures["comparison"] = {"with": paths[1].name, **compare(systems[0], systems[1], request.settings)}
    return Report(figures, systems[0], probabilities(systems[0], points, request.settings), fitted=fitted)


def localise(cases: Sequence[Case], settings: Settings) -> LocalisationFigures:
    """Measure the maps, beside a map that always shows the finding's mean box."""
    patients = pd.DataFrame(
        {"patient_id": [case.patient_id for case in cases], "image_id": [case.image_id for case in cases]}
    )
    bootstrap = settings.bootstrap(patients)
    return {
        "levels": list(LEVELS),
        "model": summarise(cases, bootstrap),
        "mean_box": summarise(point_at_mean_box(cases), bootstrap),
    }


def save_report(report: Report, folder: Path) -> list[Path]:
    """Write metrics.json, SPLIT_metrics.csv, predictions.parquet, plots, the card, and thresholds.json if fitted.

    Each file is written beside its place and renamed, so that none is ever half there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clear_unfinished(folder)
    table = folder / f"{report.figures['split']}_metrics.csv"
    write_text(folder / METRICS, json.dumps(_plain(report.figures), indent=1, allow_nan=False) + "\n")
    write_text(table, findings_table(report.figures).to_csv(index=False))
    _write_predictions(folder / PREDICTIONS, report.scored)
    written = [folder / METRICS, table, folder / PREDICTIONS]
    if report.fitted is not None:
        write_text(folder / THRESHOLDS, json.dumps(report.fitted, indent=2) + "\n")
        written.append(folder / THRESHOLDS)
    plots = save_plots(folder / "plots", report.scored, report.figures, report.probabilities, report.examples)
    write_text(
        folder / CARD, write_card(cast(Figures, _plain(report.figures)), [path.stem for path in plots], report.recipe)
    )
    return [*written, folder / "plots", folder / CARD]


def save_checklist(report: Report, folder: Path) -> tuple[Path, list[str]]:
    """Write checklist.md: what the run answers of CLAIM 2024 and TRIPOD+AI; and a line for each form."""
    page, counts = write_checklists(report.figures, report.scored.metadata, report.recipe)
    write_text(folder / CHECKLIST, page)
    return folder / CHECKLIST, counts


def _figures(
    scored: Scored, thresholds: Thresholds, request: ScoreRequest, metadata: pd.DataFrame, system: str, is_model: bool
) -> Figures:
    # The baseline of patient data is fitted on images that the system was not scored on, and never on the test split.
    train = None if request.split == "train" else metadata.iloc[:0]
    if request.split in ("validation", "test"):
        train = select_split(metadata, "train", request.protocol)
    figures: Figures = {
        "system": system,
        "is_model": is_model,
        "source": portable(request.source.name),
        "split": request.split,
        "protocol": protocol_name(request.protocol),
        **score(scored, thresholds, request.settings, train),
    }
    if request.labels is not None:
        chances, bootstrap = (
            probabilities(scored, thresholds, request.settings),
            request.settings.bootstrap(scored.metadata),
        )
        figures["other_labels"] = measure_by_table(scored, chances, request.labels, bootstrap)
    return figures


def _fit(
    scored: Scored,
    request: ScoreRequest,
    before: Thresholds,
    digest: str | None = None,
    pixels: Mapping[str, int | None] | None = None,
) -> tuple[Thresholds, ThresholdsContent]:
    minimum_precision = request.minimum_precision
    if minimum_precision is None:
        minimum_precision = before.fitted_on.get("minimum_precision", MIN_PRECISION)
    guarantee = before.conformal.get("guarantee", GUARANTEE) if request.guarantee is None else request.guarantee
    content = fit_thresholds(
        scored.truth,
        scored.scores,
        scored.metadata,
        dataset=request.source.name,
        split=request.split,
        weights_digest=digest,
        min_precision=minimum_precision,
        guarantee=guarantee,
        pixels=pixels,
        findings=scored.findings,
    )
    return Thresholds(content, scored.findings), content


def _write_predictions(path: Path, scored: Scored) -> None:
    """One row an image: its metadata and a score a finding; `score.py --predictions` reads it back."""
    table = scored.metadata.copy()
    for column in {"findings", UNKNOWN_COLUMN} & set(table.columns):
        table[column] = [list(names) if isinstance(names, tuple) else [] for names in table[column]]
    content = table.join(pd.DataFrame(scored.scores, columns=list(scored.findings))).to_parquet(index=False)
    write_atomically(path, content)


def _plain(value: object) -> object:
    """Convert a value to JSON's own types, NaN to null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value
