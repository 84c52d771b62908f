"""Plots of a scored split: every word of a legend lies within the picture."""

import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.legend import Legend

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation import plots
from cxrfpn.evaluation.scoring import Settings, score
from cxrfpn.style import DOTS_AN_INCH, STYLE
from thresholds_cxrfpn import Thresholds


@pytest.fixture(scope="module")
def scored(make_scored):
    return make_scored(200)


@pytest.fixture(scope="module")
def figures(scored):
    none = scored.metadata.iloc[:0]  # to fit a baseline on
    return score(scored, Thresholds(dict.fromkeys(FINDINGS, 0.5)), Settings(resamples=5), none)


@pytest.mark.parametrize("name", ["roc", "precision_recall", "calibration", "histograms"])
def test_legends_lie_within_the_picture(scored, figures, name):
    content = {"calibration": scored.scores}.get(name, figures)
    with rc_context(STYLE):
        figure = getattr(plots, f"draw_{name}")(scored, content)
        figure.set_dpi(DOTS_AN_INCH)
        FigureCanvasAgg(figure).draw()
        (legend,) = figure.findobj(Legend)
        box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0


def test_a_bar_without_an_interval_is_explained(figures):
    assert plots.draw_auroc(figures).axes[0].get_xlabel() == "AUROC (95 % interval)"
    rare = {**figures["findings"]["Hernia"], "auroc_ci": None}
    few = {**figures, "findings": {**figures["findings"], "Hernia": rare}}
    assert "none with positives of few patients" in plots.draw_auroc(few).axes[0].get_xlabel()
