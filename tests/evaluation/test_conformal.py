"""Three-way calls: the guarantee holds for new patients, also when the finding is more frequent, and never by luck."""

import numpy as np
import pytest

from cxrfpn.evaluation.conformal import call_all, fit_limits, measure_calls
from cxrfpn.evaluation.intervals import Bootstrap
from thresholds_cxrfpn import Thresholds, ThresholdsError

NAMES = ("Mass",)


def draw(random: np.random.Generator, patients: int, prevalence: float):
    """Films of patients, one to thirty each, whose scores lie together."""
    films = random.integers(1, 31, patients)
    owner = np.repeat(np.arange(patients), films)
    label = (random.random(patients) < prevalence)[owner]
    logits = random.normal(size=patients)[owner] + 0.3 * random.normal(size=len(owner)) + label
    return label[:, None].astype(float), 1 / (1 + np.exp(-logits))[:, None], owner.astype(str)


def test_the_guarantee_holds_for_new_patients_at_any_prevalence():
    random, kept = np.random.default_rng(0), {"with": [], "without": []}
    for _ in range(150):
        limits = fit_limits(*draw(random, 60, 0.3), 0.8, NAMES)
        labels, scores, owner = draw(random, 60, 0.7)
        calls = call_all(scores, limits, NAMES)
        figures = measure_calls(labels, calls, {"Mass": 0.3}, Bootstrap.draw(owner, 1), findings=NAMES)["Mass"]
        for which, values in kept.items():
            values.append(figures[f"covered_{which}"])
    for values in kept.values():
        assert 0.78 < np.mean(values) < 0.87  # near 0.8 from above: 18 positive patients are 0.05 of it
    assert figures["prevalence"] > figures["prevalence_fitted"] == 0.3
    assert figures["right_present"] > figures["right_present_fitted"]
    assert sum(figures["shares"].values()) == pytest.approx(1)


def test_with_too_few_patients_the_call_is_never_made():
    owner = np.repeat(np.arange(30), 10).astype(str)
    labels = (np.arange(300) < 80)[:, None].astype(float)  # 8 patients with it: 9 are needed for 0.9
    scores = np.linspace(0.9, 0.1, 300)[:, None]
    limits = fit_limits(labels, scores, owner, 0.9, NAMES)
    assert limits["Mass"]["present_from"] == 0 and "absent" not in call_all(scores, limits, NAMES)
    assert "absent" in call_all(scores, fit_limits(labels, scores, owner, 0.8, NAMES), NAMES)


def test_weights_make_films_as_ill_as_those_of_the_fit():
    labels, calls = np.zeros((4, 1)), np.array([["present"], ["absent"], ["absent"], ["absent"]])
    bootstrap = Bootstrap.draw(np.arange(4).astype(str), 5)
    plain = measure_calls(labels, calls, {}, bootstrap, findings=NAMES)["Mass"]
    assert plain["covered_without"] == 0.75 and plain["covered_without_weighted"] is None
    weighted = measure_calls(labels, calls, {}, bootstrap, np.array([3.0, 1, 1, 1]), NAMES)["Mass"]
    assert weighted["covered_without_weighted"] == 0.5 and weighted["covered_with"] is None


def test_calls_of_the_pipeline_and_limits_that_cross():
    points, limits = {"a": {"Mass": 0.5}}, {"present_from": 0.3, "absent_up_to": 0.6}
    content = {"operating_points": points, "conformal": {"guarantee": 0.9, "limits": {"Mass": limits}}}
    thresholds, scores = Thresholds(content, NAMES), np.array([[0.2], [0.4], [0.7]])
    assert [thresholds.call("Mass", score[0]) for score in scores] == ["absent", "uncertain", "present"]
    assert call_all(scores, content["conformal"]["limits"], NAMES)[:, 0].tolist() == ["absent", "uncertain", "present"]
    content["conformal"]["limits"]["Mass"] = {"present_from": 0.6, "absent_up_to": 0.3}
    assert Thresholds(content, NAMES).call("Mass", 0.4) == "uncertain"  # strange with it and without it
    content["conformal"]["limits"]["Mass"] = {"present_from": "low"}
    with pytest.raises(ThresholdsError, match="the limits of Mass are not present_from and absent_up_to"):
        Thresholds(content, NAMES)
