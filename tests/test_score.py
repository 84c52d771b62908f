"""score.py as a user runs it: a model on drawings, anyone's predictions, and what is refused."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.labels import label_matrix
from cxrfpn.data.sources import open_source
from cxrfpn.evaluation import baselines, folds
from cxrfpn.evaluation.card import write_card
from score import main

PLOTS = ["auroc", "calibration", "confusion", "histograms", "precision_recall", "roc"]


@pytest.fixture
def score(monkeypatch, capsys):
    """Run score.py in this process: its exit code, what it printed and its complaints."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["score.py", *map(str, arguments)])
        try:
            code = main()
        except SystemExit as stopped:  # argparse's own way out
            code = stopped.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def predictions(tmp_path_factory) -> dict[str, Path]:
    """Scores of the 300 drawings of phantom:300, good and poor."""
    metadata = open_source("phantom:300").metadata()
    labels, folder = label_matrix(metadata), tmp_path_factory.mktemp("predictions")
    paths = {}
    for name, signal in (("good", 2.0), ("poor", 0.5)):
        noise = np.random.default_rng(0).normal(size=labels.shape)
        table = pd.DataFrame(1 / (1 + np.exp(1 - noise - signal * labels)), columns=[f"prob_{x}" for x in FINDINGS])
        paths[name] = folder / f"{name}.csv"
        table.assign(image=metadata["image_id"] + ".png").to_csv(paths[name], index=False)
    return paths


def test_a_model_over_images_with_boxes(score, package, tmp_path):
    """All of it in one command; what is written agrees with itself, and can be scored again."""
    model, first, again = tmp_path / "model", tmp_path / "first", tmp_path / "again"
    shutil.copytree(package, model)
    (model / "recipe.yaml").write_text("seed: 7\n")
    wide = ["--source", "phantom:80", "--split", "all", "--resamples", 30]
    (first / "plots").mkdir(parents=True)
    (first / "plots" / "roc.png.4242.tmp").write_bytes(b"of a process that was killed")
    code, out, err = score("--model", model, *wide, "--output-dir", first, "--name", "org/cxr", "--checklist")
    assert code == 0, err
    assert "org/cxr on phantom:80, all: 80 images scored" in out and str(first) in out and "scoring" in err
    figures = json.loads((first / "metrics.json").read_text())
    assert figures["images"] == 80 and set(figures["findings"]) == set(FINDINGS)
    assert figures["mean_auroc_ci"][0] < figures["mean_auroc"] < figures["mean_auroc_ci"][1]
    assert figures["operating_point"] == "dynamic_adjustment" and "ece_calibrated" in figures["findings"]["Mass"]
    localisation = figures["localisation"]
    assert sum(each["boxes"] for each in localisation["model"]["findings"].values()) > 25
    assert localisation["mean_box"]["mean"]["pointing_accuracy"] > 0
    assert sorted(path.stem for path in (first / "plots").iterdir()) == sorted([*PLOTS, "examples"])
    for path in (first / "plots").iterdir():
        with Image.open(path) as picture:
            assert 800 <= picture.width <= 1300 and picture.height > 400
    assert len(pd.read_csv(first / "all_metrics.csv")) == 14
    checklist = (first / "checklist.md").read_text()
    assert "| 32 | Evaluation on internal data | This run: 80 images of" in checklist and "seed 7;" not in checklist
    assert "CLAIM 2024: " in out and "TRIPOD+AI: " in out
    assert not list(first.rglob("*.tmp"))
    code, _, err = score("--predictions", first / "predictions.parquet", *wide, "--output-dir", again,
                         "--thresholds", model / "thresholds.json")  # fmt: skip
    assert code == 0, err
    same = json.loads((again / "metrics.json").read_text())
    for name in ("findings", "mean_auroc_ci", "subgroups", "operating_points", "exact_match"):
        assert same[name] == figures[name]


def test_the_card_is_one_that_the_hub_can_read(score, package, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(package, model)
    (model / "recipe.yaml").write_text("seed: 7\n")
    settings = ["--source", "phantom:60", "--split", "all", "--resamples", 10]
    score("--model", model, *settings, "--output-dir", tmp_path, "--name", "org/cxr")
    figures = json.loads((tmp_path / "metrics.json").read_text())
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "transformers" and card.data.model_name == "org/cxr"
    results = {result.metric_name: result for result in card.data.eval_results}
    assert results["mean AUROC"].metric_value == round(figures["mean_auroc"], 4)
    mean = results["mean AUROC"]
    assert (mean.dataset_type, mean.dataset_name, mean.dataset_split) == (
        "phantom", "60 radiographs of phantom:60", "all"
    )  # fmt: skip
    assert "flatter the model" not in card.text
    assert "flatter the model" in write_card({**figures, "protocol": "report"}, [])
    assert "seed: 7" in card.text and 'model="org/cxr"' in card.text and str(tmp_path) not in card.text
    for section in ("Misuse", "Data", "Results", "Thresholds", "Calibration", "Subgroups", "Localisation", "Limits"):
        assert section in card.text
    for finding, figure in figures["findings"].items():
        shown = "-" if figure["auroc"] is None else f"{figure['auroc']:.3f} ("
        assert f"| {finding} | {figure['positives']} | {figure['positive_patients']} | {shown}" in card.text
    for picture in (tmp_path / "plots").iterdir():
        assert f"(plots/{picture.name})" in card.text


def test_two_systems_are_compared(score, predictions, tmp_path):
    settings = ["--source", "phantom:300", "--split", "all", "--resamples", 100, "--output-dir", tmp_path]
    code, out, err = score("--predictions", predictions["good"], predictions["poor"], *settings)
    assert code == 0 and "minus poor.csv on 300 images" in out, err
    comparison = json.loads((tmp_path / "metrics.json").read_text())["comparison"]
    mean = comparison["mean_auroc"]
    assert mean["difference"] == pytest.approx(mean["first"] - mean["second"])
    assert 0.1 < mean["difference_ci"][0] < mean["difference"] < mean["difference_ci"][1]
    assert "Beside poor.csv" in (tmp_path / "README.md").read_text()
    code, out, _ = score("--predictions", predictions["good"], predictions["good"], *settings)
    assert code == 0 and "0.000 (0.000 to 0.000)" in out


def test_thresholds_are_fitted_on_validation_and_used_on_test(score, predictions, tmp_path):
    fitted, tested = tmp_path / "validation", tmp_path / "test"
    common = ["--predictions", predictions["good"], "--source", "phantom:300", "--resamples", 20]
    code, _, err = score(*common, "--split", "validation", "--fit-thresholds", "--output-dir", fitted)
    assert code == 0, err
    content = json.loads((fitted / "thresholds.json").read_text())
    assert content["fitted_on"]["split"] == "validation" and content["fitted_on"]["dataset"] == "phantom:300"
    thresholds = ["--thresholds", fitted / "thresholds.json", "--prevalence", "observed"]
    code, out, err = score(*common, *thresholds, "--output-dir", tested)
    assert code == 0 and "fewer than 20 positives" in out and "too few patients" in out, err
    figures = json.loads((tested / "metrics.json").read_text())
    assert figures["fitted_on"]["split"] == "validation" and figures["split"] == "test"
    assert figures["operating_point"] == content["default"] and figures["marked"] == content["marked"]
    card = (tested / "README.md").read_text()
    assert f"The default is `{content['default']}`, chosen by the best macro F1" in card
    assert "highest 1 % of the scores" in card or not content["marked"]
    rare = [figure for figure in figures["findings"].values() if figure["positive_patients"] < 10]
    assert rare and all(figure["auroc_ci"] is None for figure in rare)
    assert figures["macro"]["ece_at_prevalence"] > 0 and set(figures["operating_points"]) >= {
        "youden",
        "sensitivity_90",
    }
    assert content["fitted_on"]["minimum_precision"] == 0.3
    code, _, err = score(*common, "--fit-thresholds", "--output-dir", tmp_path / "no")
    assert code == 2 and "never fitted on the split test" in err and not (tmp_path / "no").exists()
    other = [
        "--split",
        "validation",
        "--protocol",
        "patients",
        "--fit-thresholds",
    ]  # drawn from NIH's test list as well
    code, _, err = score(*common, *other, "--output-dir", tmp_path / "no")
    assert code == 2 and "on the source's own test list" in err and not (tmp_path / "no").exists()


def test_fitting_anew_keeps_the_minimum_precision_and_the_baseline_on_train_knows_no_patient(
    score, predictions, tmp_path, monkeypatch
):
    for module in (folds, baselines):
        monkeypatch.setattr(module, "FOLDS", 2)  # which cost less than five
    before = {"default": "half", "operating_points": {"half": dict.fromkeys(FINDINGS, 0.5)},
              "fitted_on": {"minimum_precision": 0.45}}  # fmt: skip
    (tmp_path / "before.json").write_text(json.dumps(before))
    code, _, err = score("--predictions", predictions["good"], "--source", "phantom:300", "--resamples", 5, "--split",
                         "train", "--fit-thresholds", "--thresholds", tmp_path / "before.json", "--output-dir",
                         tmp_path / "out")  # fmt: skip
    assert code == 0, err
    fitted = json.loads((tmp_path / "out" / "thresholds.json").read_text())["fitted_on"]
    assert (fitted["split"], fitted["minimum_precision"]) == ("train", 0.45)
    baseline = json.loads((tmp_path / "out" / "metrics.json").read_text())["baselines"]["patient_only"]
    assert (baseline["folds"], baseline["fitted_on"]) == (2, fitted["images"])


@pytest.mark.slow
def test_the_metadata_of_nih_is_enough(score, tmp_path, nih_mini):
    """A Data_Entry CSV and the official test list, and not one image."""
    folder = tmp_path / "nih"
    folder.mkdir()
    for name in ("Data_Entry_2017_v2020.csv", "test_list.txt", "train_val_list.txt"):
        (folder / name).write_bytes(gzip.decompress((nih_mini / f"{name}.gz").read_bytes()))
    tests = (folder / "test_list.txt").read_text().split()
    scores = pd.DataFrame(np.random.default_rng(0).random((25_596, 14)), columns=list(FINDINGS))
    scores.assign(**{"Image Index": tests}).to_parquet(tmp_path / "scores.parquet")
    common = ["--predictions", tmp_path / "scores.parquet", "--source", f"nih:{folder}", "--resamples", 20]
    code, out, err = score(*common, "--output-dir", tmp_path / "out")
    assert code == 0 and "test: 25596 images scored" in out, err
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["findings"]["Hernia"]["positives"] == 86 and figures["patients"] == 2797
    assert 0.57 < figures["baselines"]["patient_only"]["mean_auroc"] < 0.63
    assert figures["source"] == "nih:nih"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source", "nowhere"], "source 'nowhere' is none of"),
        (["--source", "phantom:30", "--thresholds", "none.json"], "none.json: cannot be read"),
        (["--source", "phantom:30", "--thresholds", "broken.json"], "broken.json: is not JSON"),
        (["--source", "phantom:30", "--thresholds", "few.json"], "few.json: thresholds.json: operating point"),
        (["--source", "phantom:30", "--prevalence", "high"], "--prevalence high: is neither observed nor a JSON file"),
        (["--source", "phantom:30", "--prevalence", "few.json"], "--prevalence lacks "),
        (["--source", "phantom:30", "--prevalence", "observed"], "lacks the calibration"),
        (["--source", "phantom:30", "--resamples", "0"], "must be 1 or more"),
        ([], "--source"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_exit_code_2(score, predictions, tmp_path, monkeypatch, arguments, said):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "few.json").write_text('{"Mass": 0.5}')
    monkeypatch.chdir(tmp_path)
    split = ["--split", "all", "--output-dir", "out"]
    code, _, err = score("--predictions", predictions["good"], *arguments, *split)
    assert code == 2 and said in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_file_of_somebody_elses_scores_that_is_not_there(score, tmp_path):
    code, _, err = score("--predictions", tmp_path / "none.csv", "--source", "phantom:30", "--split", "all")
    assert code == 2 and err.strip().endswith("none.csv: no such file")


@pytest.fixture(scope="module")
def radiologists(tmp_path_factory) -> Path:
    """A table in the layout of Google's, for 200 of the 300 drawings; of every tenth Pneumothorax is unknown."""
    metadata = open_source("phantom:300").metadata().iloc[:200]
    truth = label_matrix(metadata)
    state = np.where(truth, "YES", "NO")
    table = pd.DataFrame({"Image ID": metadata["image_id"] + ".png", "Patient ID": metadata["patient_id"]})
    table["Pneumothorax"] = state[:, FINDINGS.index("Pneumothorax")]
    table.loc[::10, "Pneumothorax"] = "HEDGE"
    either = truth[:, [FINDINGS.index("Mass"), FINDINGS.index("Nodule")]].any(axis=1)
    table["Nodule or mass"] = np.where(either, "YES", "NO")
    path = tmp_path_factory.mktemp("labels") / "test_labels.csv"
    table.to_csv(path, index=False)
    return path


def test_the_labels_of_another_table_measure_the_same_scores(score, predictions, radiologists, tmp_path):
    code, out, err = score("--predictions", predictions["good"], "--source", "phantom:300", "--split", "all",
                           "--labels", f"nih-google:{radiologists}", "--resamples", 40,
                           "--output-dir", tmp_path)  # fmt: skip
    assert code == 0, err
    assert "nih-google: 200 images; labels Pneumothorax, Nodule or mass (any of Mass, Nodule)" in err
    assert "by the labels of nih-google:test_labels.csv, 200 images:" in out
    other = json.loads((tmp_path / "metrics.json").read_text())["other_labels"]
    air, either = other["labels"]["Pneumothorax"], other["labels"]["Nodule or mass"]
    assert air["positives"] + air["negatives"] == 180 and either["positives"] + either["negatives"] == 200
    # The table agrees with the drawings, so both AUROCs do.
    assert air["auroc"] == air["auroc_own"] > 0.8 and either["auroc"] == either["auroc_own"] > 0.8
    assert either["positive_patients"] > 0 and either["members"] == ["Mass", "Nodule"]
    card = (tmp_path / "README.md").read_text()
    assert "| Nodule or mass (any of Mass, Nodule) |" in card and "| Pneumothorax |" in card


def test_a_table_of_labels_alone_is_scored_with_its_unknowns_left_out(score, predictions, radiologists, tmp_path):
    code, out, err = score("--predictions", predictions["good"], "--labels", f"nih-google:{radiologists}",
                           "--resamples", 40, "--output-dir", tmp_path)  # fmt: skip
    assert code == 0, err
    figures = json.loads((tmp_path / "metrics.json").read_text())
    air, hernia = figures["findings"]["Pneumothorax"], figures["findings"]["Hernia"]
    assert air["positives"] + air["negatives"] == 180 and hernia["positives"] == hernia["negatives"] == 0
    assert figures["mean_auroc"] == air["auroc"] and figures["exact_match"] is None
    assert len(figures["undefined"]) == 13 and "exact match undefined" in out
    code, _, err = score("--predictions", predictions["good"], "--output-dir", tmp_path)
    assert code == 2 and "give --source, --labels, or both" in err
