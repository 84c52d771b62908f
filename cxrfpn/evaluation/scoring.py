"""From a model, or anyone's predictions, and a source to figures: what score.py prints and writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from configuration_cxrfpn import FINDINGS
from cxrfpn.choices import FIT
from cxrfpn.data.cohort import CohortProtocol
from cxrfpn.data.schema import SourceError
from cxrfpn.evaluation.any_finding import measure_any_finding
from cxrfpn.evaluation.baselines import measure_baselines
from cxrfpn.evaluation.calibration import calibrate, expected_calibration_error, shift_prevalence
from cxrfpn.evaluation.conformal import measure_three_way
from cxrfpn.evaluation.figures import Bounds, Compared, Difference, Figures, FitCounts, MetricFigures, ScoredFigures
from cxrfpn.evaluation.findings_metric import compute_figures
from cxrfpn.evaluation.intervals import FEWEST_PATIENTS, Bootstrap, count_patients, interval, mean_over_findings
from cxrfpn.evaluation.predictions import PredictionsError, Scored
from cxrfpn.evaluation.subgroups import measure_subgroups
from cxrfpn.evaluation.thresholds import FEWEST_POSITIVES, describe_thresholds
from gate_cxrfpn import LEAST_FIT
from thresholds_cxrfpn import Thresholds, ThresholdsError

OBSERVED = "observed"
# Images of the lowest fit that are named.
NAMED = 5

# How the two calibration errors of a set of predictions are called.
ErrorNames = tuple[
    Literal["ece", "ece_calibrated", "ece_at_prevalence"], Literal["brier", "brier_calibrated", "brier_at_prevalence"]
]


@dataclass(frozen=True)
class Settings:
    """How figures are made: resamples of patients (or of images), and the prevalence to bring probabilities to.

    `prevalence` is None, OBSERVED (that of the scored labels) or {finding: 0..1}.
    """

    resamples: int = 1000
    resample_images: bool = False
    seed: int = 0
    prevalence: str | Mapping[str, float] | None = None

    def bootstrap(self, metadata: pd.DataFrame) -> Bootstrap:
        """Resamples of the patients of these images."""
        ids = metadata["image_id" if self.resample_images else "patient_id"]
        return Bootstrap.draw(ids.to_numpy(str), self.resamples, self.seed)


def select_split(metadata: pd.DataFrame, split: str, protocol: CohortProtocol) -> pd.DataFrame:
    """Return the rows of a split of SPLITS; every row for "all".

    Raises:
        SourceError: the source has no such images, or the protocol cannot be followed with it.
    """
    if split == "all":
        return metadata.reset_index(drop=True)
    plan = protocol.plan(metadata)
    chosen = metadata.loc[plan.index[plan["split"] == split]].reset_index(drop=True)
    if chosen.empty:
        raise SourceError(f"the split {split} has no images; --split all takes every image of the source")
    return chosen


def score(scored: Scored, thresholds: Thresholds, settings: Settings, train: pd.DataFrame | None) -> ScoredFigures:
    """All figures of a scored split, as metrics.json holds them, without localisation.

    Args:
        scored: labels and scores of its images.
        thresholds: whose default operating point calls findings, and whose calibration makes probabilities.
        settings: of intervals and prevalence.
        train: metadata of images that were not scored, to fit the baseline of patient data on; see `measure_baselines`.
    """
    with tqdm(total=4, desc="measuring", unit=" steps") as bar:
        at, bootstrap = thresholds.at(None), settings.bootstrap(scored.metadata)
        figures: MetricFigures = compute_figures(scored.truth, scored.scores, at, scored.findings)
        bar.update()
        mean_auroc_ci = _add_intervals(figures, scored, bootstrap, thresholds)
        _add_calibration(figures, scored, thresholds, settings)
        bar.update()
        subgroups = measure_subgroups(scored, at, bootstrap)
        bar.update()
        baselines = measure_baselines(
            scored.truth, scored.scores, train, scored.metadata, settings.seed, scored.findings
        )
        bar.update()
    return {
        **figures,
        "mean_auroc_ci": mean_auroc_ci,
        "subgroups": subgroups,
        "baselines": baselines,
        "fit": _count_fits(scored.metadata),
        "any_finding": measure_any_finding(scored, thresholds, bootstrap),
        "three_way": measure_three_way(scored, thresholds, bootstrap),
        "patients": int(scored.metadata["patient_id"].nunique()),
        "resampled": "images" if settings.resample_images else "patients",
        "resamples": settings.resamples,
        "operating_point": thresholds.default,
        "operating_points": {
            name: describe_thresholds(scored.truth, scored.scores, points, scored.findings)
            for name, points in thresholds.operating_points.items()
        },
        "default_chosen_by": thresholds.default_chosen_by,
        "marked": thresholds.marked,
        "fitted_on": thresholds.fitted_on,
        "coverage": {
            "images": len(scored.metadata),
            "without_scores": len(scored.without_scores),
            "unknown": len(scored.without_labels),
            "elsewhere": scored.elsewhere,
        },
    }


def compare(one: Scored, other: Scored, settings: Settings) -> Compared:
    """Two systems on the images that both have scored: AUROC of each and their difference, paired by patient.

    Returns:
        `images`, and for `mean_auroc` and each of `findings` {"first", "second", "difference", "difference_ci"}.

    Raises:
        PredictionsError: they have no image in common.
    """
    common = one.metadata.reset_index().merge(other.metadata.reset_index(), on="image_id", suffixes=("_one", "_other"))
    if common.empty:
        raise PredictionsError("the two sets of predictions have no image in common")
    one, other = one.of(common["index_one"].to_numpy()), other.of(common["index_other"].to_numpy())
    bootstrap, patients = settings.bootstrap(one.metadata), one.patients_behind()
    whole = [bootstrap.once().auroc(each.truth, each.scores) for each in (one, other)]
    resampled = [bootstrap.auroc(each.truth, each.scores) for each in (one, other)]
    return {
        "images": len(one.metadata),
        "mean_auroc": _difference(*map(mean_over_findings, whole), *map(mean_over_findings, resampled)),
        "findings": {
            finding: _difference(*(areas[:, index] for areas in (*whole, *resampled)), patients=patients[index])
            for index, finding in enumerate(one.findings)
        },
    }


def read_thresholds(path: Path | None, findings: Sequence[str] = FINDINGS) -> Thresholds:
    """Read a thresholds.json of these findings; 0.5 for every one where there is none.

    Raises:
        ThresholdsError: it cannot be read; the message names the file.
    """
    if path is None:
        return Thresholds(dict.fromkeys(findings, 0.5), findings)
    try:
        return Thresholds(json.loads(path.read_text()), findings)
    except OSError as error:
        raise ThresholdsError(f"{path}: cannot be read ({error.strerror})") from None
    except ThresholdsError as error:
        raise ThresholdsError(f"{path}: {error}") from None
    except ValueError as error:
        raise ThresholdsError(f"{path}: is not JSON ({error})") from None


def fitted_prevalence(thresholds: Thresholds, findings: Sequence[str] = FINDINGS) -> NDArray[np.float64]:
    """Return the share of positives [F] that calibration was fitted at, half an image added so that none is 0.

    Raises:
        ThresholdsError: thresholds.json does not say.
    """
    fitted = thresholds.fitted_on
    if not thresholds.calibration or not fitted.get("images") or set(findings) - set(fitted.get("positives", {})):
        raise ThresholdsError(
            "thresholds.json lacks the calibration, or what it was fitted on, that --prevalence starts from"
        )
    positives = np.array([fitted["positives"][finding] for finding in findings])
    known = np.array([fitted.get("known", {}).get(finding, fitted["images"]) for finding in findings])
    return (positives + 0.5) / (known + 1)


def probabilities(scored: Scored, thresholds: Thresholds, settings: Settings) -> NDArray[np.float64] | None:
    """Calibrated probabilities [N,F] at the prevalence that is asked for; None without a calibration."""
    if not thresholds.calibration:
        return None
    calibrated = calibrate(scored.scores, thresholds.calibration, scored.findings)
    if settings.prevalence is None:
        return calibrated
    fitted = fitted_prevalence(thresholds, scored.findings)
    if settings.prevalence == OBSERVED:
        actual = (scored.labels.sum(axis=0) + 0.5) / ((~np.isnan(scored.truth)).sum(axis=0) + 1)
    else:
        assert isinstance(settings.prevalence, Mapping)
        actual = np.array([settings.prevalence[finding] for finding in scored.findings])
    return shift_prevalence(calibrated, fitted, actual)


def read_prevalence(text: str) -> str | dict[str, float]:
    """OBSERVED, or what a JSON file holds: a mapping of {finding: 0..1}.

    Raises:
        ThresholdsError: neither; the message names what is wrong.
    """
    if text == OBSERVED:
        return text
    try:
        values = json.loads(Path(text).read_text())
    except (OSError, ValueError):
        raise ThresholdsError(
            f"--prevalence {text}: is neither {OBSERVED} nor a JSON file {{finding: share}}"
        ) from None
    if not isinstance(values, dict):
        raise ThresholdsError(f"--prevalence {text}: holds no mapping of {{finding: share}}")
    for finding, share in values.items():
        if not isinstance(share, int | float) or not 0 < share < 1:
            raise ThresholdsError(f"{text}: the prevalence of {finding} is {share!r}; it must lie between 0 and 1")
    return values


def _count_fits(metadata: pd.DataFrame) -> FitCounts | None:
    """Count the images that do not look as they should; None where nobody looked."""
    if FIT not in metadata:
        return None
    fits = metadata[FIT].dropna()
    below = fits[fits < LEAST_FIT].sort_values()
    return {"images": len(fits), "below": len(below), "lowest": metadata.loc[below.index[:NAMED], "image_id"].tolist()}


def _require_shares(prevalence: str | Mapping[str, float], findings: Sequence[str]) -> None:
    missing = [] if prevalence == OBSERVED else [finding for finding in findings if finding not in prevalence]
    if missing:
        raise ThresholdsError(f"--prevalence lacks {', '.join(missing)}; give the share of every finding")


def _add_intervals(
    figures: MetricFigures, scored: Scored, bootstrap: Bootstrap, thresholds: Thresholds
) -> Bounds | None:
    """Add every AUROC's interval and which thresholds were fitted on too little; return the interval of the mean."""
    areas = bootstrap.auroc(scored.truth, scored.scores)
    behind, fitted = scored.patients_behind(), thresholds.fitted_on
    positives_to_fit, patients_to_fit = fitted.get("positives", {}), fitted.get("positive_patients", {})
    positive_patients = count_patients(scored.labels, scored.metadata["patient_id"])
    for index, finding in enumerate(scored.findings):
        figure = figures["findings"][finding]
        figure["positive_patients"] = positive_patients[index]
        figure["auroc_ci"] = interval(areas[:, index], behind[index])
        figure["few_positives_to_fit"] = (
            positives_to_fit.get(finding, FEWEST_POSITIVES) < FEWEST_POSITIVES
            or patients_to_fit.get(finding, FEWEST_PATIENTS) < FEWEST_PATIENTS
        )
    return interval(mean_over_findings(areas))


def _add_calibration(figures: MetricFigures, scored: Scored, thresholds: Thresholds, settings: Settings) -> None:
    """Add calibration errors of the raw scores, of the probabilities, and of those at another prevalence.

    Their means are over the findings that have them all, so that they can be compared; `macro["calibrated_findings"]`
    says how many these are.
    """
    sets: dict[ErrorNames, NDArray | None] = {("ece", "brier"): scored.scores}
    sets["ece_calibrated", "brier_calibrated"] = probabilities(scored, thresholds, Settings())
    if settings.prevalence is not None:
        _require_shares(settings.prevalence, scored.findings)
        fitted_prevalence(thresholds, scored.findings)
        sets["ece_at_prevalence", "brier_at_prevalence"] = probabilities(scored, thresholds, settings)
    for (ece, brier), values in sets.items():
        for index, finding in enumerate(scored.findings):
            known = ~np.isnan(scored.truth[:, index])
            if values is None or np.isnan(values[:, index]).any() or not known.any():
                continue
            labels, predicted = scored.labels[known, index], values[known, index]
            figures["findings"][finding][ece] = expected_calibration_error(labels, predicted)
            figures["findings"][finding][brier] = float(np.mean((predicted - labels) ** 2))
    known_sets = [names for names, values in sets.items() if values is not None]
    measured = [*(ece for ece, _ in known_sets), *(brier for _, brier in known_sets)]
    complete = [figure for figure in figures["findings"].values() if all(name in figure for name in measured)]
    figures["macro"]["calibrated_findings"] = len(complete)
    for name in measured:
        figures["macro"][name] = float(np.mean([figure[name] for figure in complete])) if complete else None


def _difference(
    first: NDArray, second: NDArray, firsts: NDArray, seconds: NDArray, *, patients: int | None = None
) -> Difference:
    known = not (np.isnan(first[0]) or np.isnan(second[0]))
    return {
        "first": float(first[0]) if known else None,
        "second": float(second[0]) if known else None,
        "difference": float(first[0] - second[0]) if known else None,
        "difference_ci": interval(firsts - seconds, patients) if known else None,
    }


def findings_table(figures: Figures) -> pd.DataFrame:
    """Return the figures as a table, one row a finding: what `*_metrics.csv` holds."""
    rows = []
    for finding, figure in figures["findings"].items():
        row: dict[str, object] = {"finding": finding}
        for name, value in figure.items():
            row |= _flat(name, value)
        rows.append(row)
    return pd.DataFrame(rows)


def _flat(name: str, value: object) -> dict[str, object]:
    if name == "confusion" and isinstance(value, list):
        (true_negatives, false_positives), (false_negatives, true_positives) = value
        return {"tn": true_negatives, "fp": false_positives, "fn": false_negatives, "tp": true_positives}
    if isinstance(value, list | tuple):
        return {f"{name}_low": value[0], f"{name}_high": value[1]}
    return {name: value}
