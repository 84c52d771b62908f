"""The same figures by sex, age, view position and sharpness, and the gaps between groups."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrfpn.data.sharpness import SHARP_SIDE, SIDE_COLUMN
from cxrfpn.evaluation.figures import Estimate, GapFigures, GroupFindingFigures, SubgroupFigures
from cxrfpn.evaluation.intervals import Bootstrap, count_patients, interval, mean_over_findings
from cxrfpn.evaluation.metrics import auroc_by_finding
from cxrfpn.evaluation.predictions import Scored

AGE_BANDS = {"0-17": (0, 18), "18-39": (18, 40), "40-64": (40, 65), "65 and over": (65, np.inf)}
FIGURES = ("auroc", "sensitivity", "specificity")


def groups(metadata: pd.DataFrame) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """{attribute: {group: which images}}; unknown values are in no group, and empty groups are left out."""
    masks: dict[str, dict[str, NDArray[np.bool_]]] = {
        "sex": {value: (metadata["sex"] == value).to_numpy() for value in ("F", "M")},
        "age": {
            name: ((metadata["age"] >= low) & (metadata["age"] < high)).to_numpy()
            for name, (low, high) in AGE_BANDS.items()
        },
        "view position": {value: (metadata["view_position"] == value).to_numpy() for value in ("PA", "AP")},
    }
    if SIDE_COLUMN in metadata:
        side = metadata[SIDE_COLUMN]
        masks["source"] = {"sharp": (side >= SHARP_SIDE).to_numpy(), "blurred": (side < SHARP_SIDE).to_numpy()}
    present = {
        attribute: {group: mask for group, mask in by_group.items() if mask.any()}
        for attribute, by_group in masks.items()
    }
    return {attribute: by_group for attribute, by_group in present.items() if by_group}


def measure_subgroups(
    scored: Scored, thresholds: Mapping[str, float], bootstrap: Bootstrap
) -> dict[str, SubgroupFigures]:
    """Figures of each group, and for each attribute how far groups are from its largest one.

    Sensitivity and specificity are means over the findings, like the AUROC; a finding that a group lacks is left out.

    Returns:
        {attribute: {"groups": {group: {images, patients, auroc, auroc_ci, sensitivity, ..., findings: {finding:
        {positives, positive_patients, auroc, sensitivity, specificity, and each with _ci}}}}, "reference": group,
        "gaps": {group: {figure: difference, figure_ci: [lo, hi]}}}}. A gap is over the findings that both groups have,
        paired by patient. A _ci is None where too few patients stand behind it.
    """
    calls = scored.scores >= np.array([thresholds[finding] for finding in scored.findings])
    report: dict[str, SubgroupFigures] = {}
    for attribute, masks in groups(scored.metadata).items():
        values = {group: _values(scored, calls, mask) for group, mask in masks.items()}
        samples = {group: _samples(scored, calls, mask, bootstrap) for group, mask in masks.items()}
        members = {group: scored.metadata["patient_id"][mask] for group, mask in masks.items()}
        sizes = {group: int(mask.sum()) for group, mask in masks.items()}
        reference = max(sizes, key=sizes.__getitem__)
        report[attribute] = {
            "groups": {
                group: {
                    "images": sizes[group],
                    "patients": members[group].nunique(),
                    **_means(values[group], samples[group], members[group].nunique()),
                    "findings": _by_finding(scored.of(mask), values[group], samples[group]),
                }
                for group, mask in masks.items()
            },
            "reference": reference,
            "gaps": {
                group: _gap(values, samples, group, reference) for group in masks if group != reference
            },
        }  # fmt: skip
    return report


def _values(scored: Scored, calls: NDArray[np.bool_], mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Each figure of each finding, [1,F]; NaN where it is undefined."""
    labels, absent, mine = scored.labels[mask], scored.absent[mask], calls[mask]
    by_finding = auroc_by_finding(scored.truth[mask], scored.scores[mask], scored.findings)
    areas = [np.nan if area is None else area for area in by_finding.values()]
    with np.errstate(invalid="ignore"):
        sensitivity = (labels & mine).sum(axis=0) / labels.sum(axis=0)
        specificity = (absent & ~mine).sum(axis=0) / absent.sum(axis=0)
    return {"auroc": np.array([areas]), "sensitivity": sensitivity[None], "specificity": specificity[None]}


def _samples(
    scored: Scored, calls: NDArray[np.bool_], mask: NDArray[np.bool_], bootstrap: Bootstrap
) -> dict[str, NDArray[np.float64]]:
    """Each figure of each finding in every resample, [R,F]."""
    labels, absent, mine, resamples = scored.labels[mask], scored.absent[mask], calls[mask], bootstrap.of(mask)
    return {
        "auroc": resamples.auroc(scored.truth[mask], scored.scores[mask]),
        "sensitivity": resamples.ratio(labels & mine, labels),
        "specificity": resamples.ratio(absent & ~mine, absent),
    }


def _means(values: Mapping[str, NDArray], samples: Mapping[str, NDArray], patients: int) -> GapFigures:
    return _named(
        {
            name: Estimate(
                _number(mean_over_findings(values[name])[0]), interval(mean_over_findings(samples[name]), patients)
            )
            for name in FIGURES
        }
    )


def _by_finding(
    part: Scored, values: Mapping[str, NDArray], samples: Mapping[str, NDArray]
) -> dict[str, GroupFindingFigures]:
    figures: dict[str, GroupFindingFigures] = {}
    patients = part.metadata["patient_id"]
    counts = (count_patients(which, patients) for which in (part.labels, part.absent))
    for index, (finding, ill, well) in enumerate(zip(part.findings, *counts, strict=True)):
        behind = {"auroc": min(ill, well), "sensitivity": ill, "specificity": well}
        estimates = {
            name: Estimate(_number(values[name][0, index]), interval(samples[name][:, index], behind[name]))
            for name in FIGURES
        }
        figures[finding] = {
            "positives": int(part.labels[:, index].sum()),
            "positive_patients": ill,
            **_named(estimates),
        }
    return figures


def _gap(
    values: Mapping[str, Mapping[str, NDArray]],
    samples: Mapping[str, Mapping[str, NDArray]],
    group: str,
    reference: str,
) -> GapFigures:
    return _named(
        {
            name: Estimate(
                _number(mean_over_findings(values[group][name] - values[reference][name])[0]),
                interval(mean_over_findings(samples[group][name] - samples[reference][name])),
            )
            for name in FIGURES
        }
    )


def _named(estimates: Mapping[str, Estimate]) -> GapFigures:
    auroc, sensitivity, specificity = (estimates[name] for name in FIGURES)
    return {
        "auroc": auroc.value,
        "auroc_ci": auroc.bounds,
        "sensitivity": sensitivity.value,
        "sensitivity_ci": sensitivity.bounds,
        "specificity": specificity.value,
        "specificity_ci": specificity.bounds,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
