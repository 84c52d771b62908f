"""The operating points that the page offers: names for people, thresholds, and what was measured at them."""

from demo.figures import Figures
from thresholds_cxrfpn import Thresholds

# In the order in which the page shows them: title, and one line that says what it is.
TITLES = {
    "dynamic_adjustment": ("The report's", "Best F1 at a fair precision, lowered where even that is weak."),
    "precision_constraint": ("Precision first", "Best F1 among thresholds with a fair precision."),
    "youden": ("Youden", "Largest sum of sensitivity and specificity."),
    "sensitivity_90": ("90 % sensitivity", "Calls nine of ten positives, and many that are none."),
}


def describe_points(thresholds: Thresholds, figures: Figures) -> list[dict[str, object]]:
    """Describe every operating point of a package.

    Args:
        thresholds: the pipeline's `Thresholds`.
        figures: what was measured of the package; may be empty.

    Returns:
        `{"name", "title", "hint", "thresholds": {finding: 0..1}, "any_threshold": 0..1 or None, "figures": {finding:
        {...}} or None}` each.
    """
    known = [name for name in TITLES if name in thresholds.operating_points]
    others = [name for name in thresholds.operating_points if name not in TITLES]
    return [
        {
            "name": name,
            "title": TITLES[name][0] if name in TITLES else name.replace("_", " ").capitalize(),
            "hint": TITLES[name][1] if name in TITLES else "",
            "thresholds": thresholds.operating_points[name],
            "any_threshold": thresholds.any_finding.get("thresholds", {}).get(name),
            "figures": figures.of_operating_point(name, thresholds.operating_points[name]),
        }
        for name in known + others
    ]
