"""The sections of a card on any_finding and three-way calls, from metrics.json."""

from cxrfpn.evaluation.figures import Estimate, Figures, ThreeWayFigures
from cxrfpn.evaluation.markdown import number, percent, table
from thresholds_cxrfpn import CALLS


def any_finding_section(figures: Figures) -> str:
    """Whether there is any finding; nothing where thresholds.json was fitted without it."""
    if not (figure := figures.get("any_finding")):
        return ""
    rows = [
        (f"`{name}`", *(number(point[key]) for key in ("threshold", "sensitivity", "specificity", "precision")))
        for name, point in figure["operating_points"].items()
    ]
    header = ("operating point", "threshold", "sensitivity", "specificity", "precision")
    auroc = Estimate.of(figure, "auroc").text()
    return (
        f"## Any finding\n\nWhether the radiograph has any of the findings: AUROC {auroc} "
        f"({figure['positives']:,} images with, {figure['negatives']:,} without). The score joins the calibrated "
        "probabilities of the findings as if they were independent (noisy or) and is calibrated in its turn: ECE "
        f"{number(figure['ece_calibrated'])}, Brier {number(figure['brier_calibrated'])}.\n\n{table(header, rows)}\n"
    )


def three_way_section(figures: Figures) -> str:
    """Three-way calls: whether they keep their guarantee, and what another prevalence does to them."""
    if not (calls := figures.get("three_way")):
        return ""
    return "\n".join(
        [
            "## Present, absent or uncertain\n",
            f"Split conformal prediction over patients at a guarantee of {calls['guarantee']:.0%}: of radiographs with "
            "a finding at least so many are not called absent, and of those without it at least so many are not called "
            "present. *Kept* is how many it was on these images, each patient counting once. A finding's own "
            "prevalence does not break the guarantee, since each label has its own limit; that of the other findings "
            "does: radiographs without this one then have others more often. *As ill as there* weights images so that "
            "as many have any finding as where the limits were fitted; what is still missing is another kind of "
            "patient or film. Prevalence also changes what a call means: the last columns show how often it is right "
            "at the prevalence of the fit, and here.\n",
            three_way_table(calls),
            "",
        ]
    )


def three_way_table(calls: ThreeWayFigures) -> str:
    """Return a row for each finding.

    Args:
        calls: as of `measure_three_way`.
    """
    rows = [
        (
            name.replace("_", " "),
            *(Estimate.of(figure, f"covered_{which}").text() for which in ("with", "without", "without_weighted")),
            *(percent(figure["shares"][call]) for call in CALLS),
            f"{percent(figure['prevalence_fitted'])}, {percent(figure['prevalence'])}",
            f"{percent(figure['right_present_fitted'])}, {percent(figure['right_present'])}",
            f"{percent(figure['right_absent_fitted'])}, {percent(figure['right_absent'])}",
        )
        for name, figure in calls["findings"].items()
    ]
    header = ("finding", "kept with it", "kept without it", "as ill as there", *CALLS, "prevalence: fitted, here",
              "`present` is right: there, here", "`absent` is right: there, here")  # fmt: skip
    return table(header, rows)
