"""Plans: which image is in which split, and how often it is shown."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.balancing import ReportProtocol
from cxrfpn.data.cohort import OfficialProtocol, PatientsProtocol, leaking_patients, plan_cohort
from cxrfpn.data.labels import NO_FINDING, count_labels
from cxrfpn.data.schema import METADATA_COLUMNS, SourceError

# Table 1 of the report.
WHOLE_SET = {
    "No Finding": 60361, "Infiltration": 19894, "Effusion": 13317, "Atelectasis": 11559, "Nodule": 6331, "Mass": 5782,
    "Pneumothorax": 5302, "Consolidation": 4667, "Pleural_Thickening": 3385, "Cardiomegaly": 2776, "Emphysema": 2516,
    "Edema": 2303, "Fibrosis": 1686, "Pneumonia": 1431, "Hernia": 227,
}  # fmt: skip
# Table 2 of the report: the weights of its loss.
LOSS_WEIGHTS = {
    "Hernia": 3.0943, "Nodule": 2.1768, "Fibrosis": 3.0209, "Edema": 2.8127, "Cardiomegaly": 2.5823, "Effusion": 1.6668,
    "Pneumothorax": 2.3087, "Pleural_Thickening": 2.4494, "Consolidation": 2.4346, "Emphysema": 2.6907,
    "Pneumonia": 3.0943, "Mass": 2.2459, "Atelectasis": 1.8179, "Infiltration": 1.6402,
}  # fmt: skip


@pytest.fixture(scope="module")
def nih(nih_mini: Path) -> pd.DataFrame:
    """The metadata of all 112,120 images; the folds are drawn here, NIH's own files have none."""
    table = pd.read_csv(nih_mini / "Data_Entry_2017_v2020.csv.gz")
    tested = pd.read_csv(nih_mini / "test_list.txt.gz", header=None)[0]
    split = np.where(table["Image Index"].isin(tested), "test", "train")
    labels = table["Finding Labels"]
    return pd.DataFrame(
        {
            "image_id": table["Image Index"].str.removesuffix(".png"),
            "patient_id": table["Patient ID"].astype(str),
            "age": table["Patient Age"].astype(float),
            "sex": table["Patient Gender"],
            "view_position": table["View Position"],
            "findings": [() if label == NO_FINDING else tuple(label.split("|")) for label in labels],
            "split": split,
            "fold": (table["Patient ID"] % 10).where(split == "train"),
        }
    )[list(METADATA_COLUMNS)]


@pytest.fixture(scope="module")
def table() -> Callable[..., pd.DataFrame]:
    """A metadata table of `images` images, 3 a patient, each with none, one or two findings."""

    def make(images: int = 600, seed: int = 0) -> pd.DataFrame:
        random = np.random.default_rng(seed)
        chosen = [tuple(random.choice(FINDINGS, random.integers(3), replace=False)) for _ in range(images)]
        patients = np.arange(images) // 3
        return pd.DataFrame(
            {
                "image_id": [f"image-{number:05}" for number in random.permutation(images)],
                "patient_id": [f"patient-{number}" for number in patients],
                "age": 50.0,
                "sex": "F",
                "view_position": "PA",
                "findings": chosen,
                "split": np.where(patients % 5 == 0, "test", "train"),
                "fold": np.where(patients % 5 == 0, None, patients % 7),
            }
        )

    return make


def silently(metadata: pd.DataFrame, protocol: object) -> pd.DataFrame:
    return plan_cohort(metadata, protocol, say=lambda line: None)


def test_the_whole_set_has_the_counts_of_the_report(nih: pd.DataFrame) -> None:
    assert count_labels(nih).to_dict() == WHOLE_SET


def test_official_keeps_the_official_lists(nih: pd.DataFrame) -> None:
    plan = silently(nih, OfficialProtocol())
    assert len(plan) == 112_120 and (plan["copies"] == 1).all() and (plan["mirrored"] == 0).all()
    split = plan.set_index("image_id")["split"]
    assert (split == "test").sum() == 25_596
    known = nih.set_index("image_id")
    assert (split[known.index[known["fold"] == 0]] == "validation").all()
    assert (split[known.index[known["fold"] > 0]] == "train").all()
    assert leaking_patients(nih, plan) == []


def test_official_draws_validation_by_patient_where_no_image_has_a_fold(nih: pd.DataFrame) -> None:
    plan = silently(nih.assign(fold=None), OfficialProtocol())
    patients = nih["patient_id"].groupby(plan["split"]).nunique()
    assert patients["test"] == 2797 and patients["validation"] == round(0.1 * (30_805 - 2797))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": None}, "600 images have no official split, image-.* the first; take the protocol patients"),
        ({"patient_id": "one"}, "patient one is in more than one split; take the protocol patients"),
        ({"image_id": "twin"}, "image twin is there twice"),
        ({"patient_id": None}, "image image-.* has no patient id"),
    ],
)
def test_what_cannot_be_planned_is_refused_by_name(
    table: Callable[..., pd.DataFrame], change: dict, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        silently(table().assign(**change), OfficialProtocol())


def test_an_unknown_finding_is_refused_by_name(table: Callable[..., pd.DataFrame]) -> None:
    metadata = table()
    metadata.at[7, "findings"] = ("Mass", "Gout")
    with pytest.raises(SourceError, match=f"image {metadata['image_id'][7]} has the unknown finding Gout"):
        silently(metadata, ReportProtocol())


def test_a_missing_fold_among_others_is_refused(table: Callable[..., pd.DataFrame]) -> None:
    metadata = table()
    metadata.at[3, "fold"] = None
    with pytest.raises(SourceError, match=f"image {metadata['image_id'][3]} has no fold"):
        silently(metadata, OfficialProtocol())


def test_patients_are_never_divided_and_the_shares_are_kept(table: Callable[..., pd.DataFrame]) -> None:
    metadata = table()
    plan = silently(metadata, PatientsProtocol(seed=3))
    patients = metadata["patient_id"].groupby(plan["split"]).nunique()
    assert patients.to_dict() == {"test": 40, "train": 140, "validation": 20}
    assert (metadata.assign(split=plan["split"]).groupby("patient_id")["split"].nunique() == 1).all()
    again = silently(metadata.sample(frac=1, random_state=1), PatientsProtocol(seed=3))
    assert again.sort_index().equals(plan), "the order of the table must not matter"
    assert not silently(metadata, PatientsProtocol(seed=4)).equals(plan)


def test_too_few_patients_are_refused(table: Callable[..., pd.DataFrame]) -> None:
    with pytest.raises(SourceError, match="2 patients are too few to split"):
        silently(table(images=6), PatientsProtocol())


def test_report_undersamples_as_its_text_says(nih: pd.DataFrame) -> None:
    steps = dict(ReportProtocol().steps(nih))
    kept = nih.loc[steps["undersampled"].index]
    assert abs(len(kept) - 45_598) <= 5
    before, after = Counter(nih["findings"]), Counter(kept["findings"])
    for findings, share in {(): 0.10, ("Infiltration",): 0.15, ("Effusion",): 0.5, ("Atelectasis",): 0.5}.items():
        assert abs(after.pop(findings) - share * before.pop(findings)) <= 0.5
    assert after == before, "nothing else may be lost"
    assert (kept["findings"].map(len) == 0).sum() == 6036


def test_report_splits_every_stratum_by_its_shares(nih: pd.DataFrame) -> None:
    plan = dict(ReportProtocol().steps(nih))["split"]
    shares = plan["split"].value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.72, abs=1e-4) and shares["validation"] == pytest.approx(0.08, abs=1e-4)
    letters = nih["findings"].loc[plan.index].map(lambda names: "|".join(sorted(names))[:4] or "No F")
    counts = pd.crosstab(letters, plan["split"])
    assert len(counts) == 14, "Pneumonia and Pneumothorax begin alike"
    for split, share in {"train": 0.72, "validation": 0.08, "test": 0.20}.items():
        assert (counts[split] - share * counts.sum(axis=1)).abs().max() <= 2


def test_report_doubles_replicates_and_cuts_train_alone(nih: pd.DataFrame) -> None:
    steps = {
        name: plan[plan["split"] == "train"]
        for name, plan in ReportProtocol().steps(nih)
        if name not in ("whole set", "undersampled")
    }
    counts = {name: count_labels(nih, plan) for name, plan in steps.items()}
    rare = counts["split"].index[counts["split"] < 3000].drop(NO_FINDING, errors="ignore")
    assert len(rare) >= 7
    assert (counts["mirrored"][rare] == 2 * counts["split"][rare]).all()
    assert set(steps["mirrored"]["mirrored"]) == {0, 1}
    assert (counts["replicated"] >= 1500).all()
    assert counts["replicated"]["Hernia"] == 1500, "replicated up to, not beyond"
    alone = nih["findings"].loc[steps["replicated"].index]
    final = nih["findings"].loc[steps["cut"].index]
    for findings, share in {(): 0.25, ("Atelectasis",): 0.5}.items():
        assert abs((final == findings).sum() - share * (alone == findings).sum()) <= 0.5
    assert (final.map(len) > 1).sum() == (alone.map(len) > 1).sum()
    whole = ReportProtocol().plan(nih)
    others = whole[whole["split"] != "train"]
    assert (others["copies"] == 1).all() and (others["mirrored"] == 0).all()


def test_copies_of_a_class_are_shared_out_evenly(nih: pd.DataFrame) -> None:
    plan = ReportProtocol().plan(nih)
    only_hernia = plan[(nih["findings"].loc[plan.index] == ("Hernia",)) & (plan["split"] == "train")]
    shown = only_hernia[["copies", "mirrored"]].to_numpy()
    assert shown.max() - shown.min() <= 1


@pytest.mark.parametrize(("mixed", "distance", "steps"), [(True, 0.133, 246), (False, 0.036, 211)])
def test_loss_weights_of_the_balanced_set_are_those_of_the_report(
    nih: pd.DataFrame, mixed: bool, distance: float, steps: int
) -> None:
    plan = ReportProtocol(mirror_mixed=mixed).plan(nih)
    train = plan[plan["split"] == "train"]
    images = (train["copies"] + train["mirrored"]).sum()
    weights = np.log1p(images / count_labels(nih, train))
    differences = [abs(weights[finding] - weight) for finding, weight in LOSS_WEIGHTS.items()]
    assert np.mean(differences) == pytest.approx(distance, abs=0.001)
    assert images // 160 == steps and len(train) / 160 == pytest.approx(180.0, abs=0.05)


def test_the_report_showed_copies(nih: pd.DataFrame) -> None:
    """Its weights of Hernia and Pneumonia are those of classes of one size, which they are only when replicated."""
    assert LOSS_WEIGHTS["Hernia"] == LOSS_WEIGHTS["Pneumonia"]
    images = 1500 * np.expm1(LOSS_WEIGHTS["Hernia"])
    assert images / 160 == pytest.approx(197.5, abs=0.1)
    plan = ReportProtocol(mirror_mixed=False).plan(nih)
    train = plan[plan["split"] == "train"]
    once = count_labels(nih, train.assign(copies=1, mirrored=0))
    assert np.log1p(len(train) / once["Hernia"]) == pytest.approx(5.15, abs=0.01)
    in_the_report = 42_935 / 45_596  # images before the split: those of its confusion matrices, and ours
    assert in_the_report * (train["copies"] + train["mirrored"]).sum() == pytest.approx(images, rel=0.01)


def test_report_is_drawn_by_its_seed_and_not_by_the_order_of_the_table(table: Callable[..., pd.DataFrame]) -> None:
    metadata = table()
    protocol = ReportProtocol(mirror_below=30, replicate_to=40)
    plan = protocol.plan(metadata).sort_index()
    assert protocol.plan(metadata.sample(frac=1, random_state=0)).sort_index().equals(plan)
    assert not ReportProtocol(seed=1, mirror_below=30, replicate_to=40).plan(metadata).sort_index().equals(plan)


def test_mirroring_can_be_switched_off(table: Callable[..., pd.DataFrame]) -> None:
    plan = ReportProtocol(mirror_below=0, replicate_to=100).plan(table())
    assert (plan["mirrored"] == 0).all() and plan["copies"].max() > 1


def test_report_says_how_many_patients_leak(nih: pd.DataFrame) -> None:
    lines: list[str] = []
    plan = plan_cohort(nih, ReportProtocol(), say=lines.append)
    splits = nih["patient_id"].loc[plan.index].to_frame().assign(split=plan["split"])
    leaking = (splits.groupby("patient_id")["split"].nunique() > 1).sum()
    assert leaking > 3000
    assert f"{leaking:,} patients are in more than one split" in lines[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"test": 1.2},
        {"validation": 0.5, "test": 0.5},
        {"undersampling": {"Gout": 0.5}},
        {"train_cut": {"Mass": -0.1}},
    ],
)
def test_impossible_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match="report protocol"):
        ReportProtocol(**settings)


def test_planning_all_of_nih_costs_at_most_three_readings_of_its_table(nih: pd.DataFrame, nih_mini: Path) -> None:
    def seconds(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    reading, planning = [], []
    for _ in range(5):
        reading.append(seconds(lambda: pd.read_csv(nih_mini / "Data_Entry_2017_v2020.csv.gz")))
        planning.append(seconds(lambda: silently(nih, ReportProtocol())))
    assert min(planning) <= 3 * min(reading)


def test_the_rarest_class_is_replicated_first() -> None:
    """Copies made for Hernia count for Fibrosis as well, so that images of Fibrosis alone need no copies."""
    findings = [("Fibrosis", "Hernia")] * 100 + [("Fibrosis",)] * 150
    metadata = pd.DataFrame(
        {"image_id": [str(number) for number in range(250)], "patient_id": "one", "findings": findings}
    )
    plan = ReportProtocol(mirror_below=0, replicate_to=200).plan(metadata)
    train = plan["split"] == "train"
    both = (metadata["findings"].map(len) == 2)[plan.index]
    assert plan["copies"][train & both].sum() == 200 and (plan["copies"][train & ~both] == 1).all()


def test_a_class_of_just_as_many_is_not_mirrored(table: Callable[..., pd.DataFrame]) -> None:
    metadata = table()
    split = dict(ReportProtocol().steps(metadata))["split"]
    fewest = int(count_labels(metadata, split[split["split"] == "train"]).drop(NO_FINDING).min())
    assert not ReportProtocol(mirror_below=fewest).plan(metadata)["mirrored"].any()
    assert ReportProtocol(mirror_below=fewest + 1).plan(metadata)["mirrored"].any()
