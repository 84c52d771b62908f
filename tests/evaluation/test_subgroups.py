"""Groups, their figures and their gaps; and the baselines below which a model has learnt nothing."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.labels import label_matrix
from cxrfpn.data.sharpness import SIDE_COLUMN
from cxrfpn.evaluation.baselines import measure_baselines, patient_scores, pixel_scores
from cxrfpn.evaluation.intervals import Bootstrap
from cxrfpn.evaluation.metrics import mean_auroc, measure
from cxrfpn.evaluation.subgroups import groups, measure_subgroups

HALF = dict.fromkeys(FINDINGS, 0.3)


def test_groups_by_sex_age_view_and_sharpness(make_metadata):
    metadata = make_metadata(40)
    assert list(groups(metadata)) == ["sex", "age", "view position"]
    metadata["age"] = [0, 17, 17.9, 18, 39, 40, 64, 65, 95, np.nan] * 4
    metadata.loc[0, "sex"] = None
    metadata[SIDE_COLUMN] = [128] * 30 + [299, 300, 384, 1024] + [np.nan] * 6
    figures = groups(metadata)
    assert {band: int(mask.sum()) for band, mask in figures["age"].items()} == {
        "0-17": 12, "18-39": 8, "40-64": 8, "65 and over": 8,
    }  # fmt: skip
    assert sum(mask.sum() for mask in figures["sex"].values()) == 39
    assert {name: int(mask.sum()) for name, mask in figures["source"].items()} == {"sharp": 3, "blurred": 31}


def test_a_group_has_the_figures_of_its_images(make_scored):
    scored = make_scored(500)
    bootstrap = Bootstrap.draw(scored.metadata["patient_id"], 100)
    report = measure_subgroups(scored, HALF, bootstrap)["sex"]
    for sex, group in report["groups"].items():
        mask = (scored.metadata["sex"] == sex).to_numpy()
        figures = measure(scored.labels[mask], scored.scores[mask], HALF)
        assert group["images"] == mask.sum()
        assert group["auroc"] == pytest.approx(figures["mean_auroc"])
        assert group["sensitivity"] == pytest.approx(figures["macro"]["recall"])
        assert group["specificity"] == pytest.approx(figures["macro"]["specificity"])
        assert group["findings"]["Mass"]["auroc"] == pytest.approx(figures["findings"]["Mass"]["auroc"])
        for name in ("auroc", "sensitivity", "specificity"):
            assert group[f"{name}_ci"][0] < group[name] < group[f"{name}_ci"][1]
    (other,) = report["gaps"]
    gap = report["groups"][other]["auroc"] - report["groups"][report["reference"]]["auroc"]
    assert report["gaps"][other]["auroc"] == pytest.approx(gap)
    low, high = report["gaps"][other]["auroc_ci"]
    assert low < 0 < high  # these scores know nothing of sex


def test_a_gap_that_is_there_is_seen_and_leaves_out_findings_that_one_group_lacks(make_scored):
    scored = make_scored(900)
    women = (scored.metadata["sex"] == "F").to_numpy()
    scored.scores[women] = np.random.default_rng(0).random((women.sum(), 14))
    scored.labels[women, FINDINGS.index("Hernia")] = False
    figures = measure_subgroups(scored, HALF, Bootstrap.draw(scored.metadata["patient_id"], 200))["sex"]
    sign = 1 if figures["reference"] == "M" else -1
    (gap,) = figures["gaps"].values()
    assert sorted(sign * bound for bound in gap["auroc_ci"])[1] < -0.1
    women_known = np.mean([figures["groups"]["F"]["findings"][name]["auroc"] for name in FINDINGS[:-1]])
    men_known = np.mean([figures["groups"]["M"]["findings"][name]["auroc"] for name in FINDINGS[:-1]])
    assert gap["auroc"] == pytest.approx(sign * (women_known - men_known))
    assert figures["groups"]["F"]["findings"]["Hernia"]["auroc"] is None


def test_the_baseline_finds_what_the_patient_gives_away_and_no_more(make_metadata):
    """Edema follows the view and Fibrosis age; nothing else is to be learnt."""
    metadata = make_metadata(4000)
    metadata["findings"] = [
        (*findings, *(("Edema",) if view == "AP" else ()), *(("Fibrosis",) if age > 60 else ()))
        for findings, view, age in zip(metadata["findings"], metadata["view_position"], metadata["age"], strict=True)
    ]
    metadata.loc[::7, ["age", "sex", "view_position"]] = np.nan
    train, test = (metadata[metadata["split"] == split].reset_index(drop=True) for split in ("train", "test"))
    labels = label_matrix(test)
    baselines = measure_baselines(labels, patient_scores(train, test), train, test)["patient_only"]
    assert baselines["findings"]["Edema"] > 0.85 and baselines["findings"]["Fibrosis"] > 0.85
    assert (
        0.44 < np.mean([baselines["findings"][name] for name in FINDINGS if name not in ("Edema", "Fibrosis")]) < 0.56
    )
    assert baselines["fitted_on"] == len(train)


def test_on_the_train_split_the_baseline_is_fitted_on_other_patients_than_it_scores(make_metadata):
    """Findings that are drawn by lot for each patient: a fit on the same patients would know many of them by heart."""
    metadata, random = make_metadata(1500), np.random.default_rng(0)
    patients = metadata["patient_id"].unique()
    drawn = dict(zip(patients, random.random(len(patients)) < 0.3, strict=True))
    metadata["age"] = metadata["patient_id"].map(dict(zip(patients, random.uniform(1, 95, len(patients)), strict=True)))
    metadata["findings"] = [("Mass",) if drawn[patient] else () for patient in metadata["patient_id"]]
    labels = label_matrix(metadata)
    by_heart = measure_baselines(labels, labels * 1.0, metadata, metadata)["patient_only"]
    honest = measure_baselines(labels, labels * 1.0, None, metadata)["patient_only"]
    assert by_heart["findings"]["Mass"] > 0.65 and 0.4 < honest["findings"]["Mass"] < 0.6
    assert honest["folds"] == 5 and honest["fitted_on"] == 1500


def test_in_a_group_a_figure_of_few_patients_has_no_interval(make_scored):
    scored = make_scored(500)
    old = (scored.metadata["age"] >= 65).to_numpy()
    scored.labels[old, FINDINGS.index("Hernia")] = False
    scored.labels[np.flatnonzero(old)[:2], FINDINGS.index("Hernia")] = True
    figures = measure_subgroups(scored, HALF, Bootstrap.draw(scored.metadata["patient_id"], 50))["age"]
    hernia = figures["groups"]["65 and over"]["findings"]["Hernia"]
    assert (hernia["positives"], hernia["positive_patients"]) in ((2, 1), (2, 2))
    assert hernia["auroc"] is not None and hernia["auroc_ci"] is None and hernia["sensitivity_ci"] is None
    assert hernia["specificity_ci"] is not None


def test_the_baseline_of_pixels_finds_what_is_white_or_old(make_metadata):
    """A stripe is there with Mass, in noise; Fibrosis follows age, which pixels say nothing of."""
    metadata, random = make_metadata(2000), np.random.default_rng(0)
    shown = random.random(len(metadata)) < 0.3
    both = zip(shown, metadata["age"] > 60, strict=True)
    metadata["findings"] = [("Mass",) * bool(striped) + ("Fibrosis",) * bool(old) for striped, old in both]
    pixels = random.normal(size=(len(metadata), 64))
    pixels[shown, 8:16] += 1
    parts = [part for split in ("train", "test") for part in (
        metadata[metadata["split"] == split].reset_index(drop=True), pixels[metadata["split"] == split])]  # fmt: skip
    found = dict(zip(FINDINGS, pixel_scores(*parts).T, strict=True))
    truth = label_matrix(parts[2])
    for name in ("Mass", "Fibrosis"):
        assert roc_auc_score(truth[:, FINDINGS.index(name)], found[name]) > 0.85
    assert set(found["Hernia"]) == {0.0}  # never shown


def test_shuffled_labels_are_chance(make_scored):
    scored = make_scored(800, signal=3)
    baselines = measure_baselines(scored.labels, scored.scores, scored.metadata[:0], scored.metadata)
    assert mean_auroc(scored.labels, scored.scores) > 0.9
    assert baselines["shuffled_labels"]["mean_auroc"] == pytest.approx(0.5, abs=0.02)
    assert baselines["shuffled_labels"]["highest_mean_auroc"] < 0.56
    assert "patient_only" not in baselines  # nothing to fit it on
