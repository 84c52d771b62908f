"""What a run's files answer of the reporting forms, and figures in the Hub's format."""

import re

import pandas as pd
import pytest
import yaml
from huggingface_hub._eval_results import parse_eval_result_entries

from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.checklist import FOLDER, FORMS, gather_facts, write_checklists
from cxrfpn.evaluation.eval_results import eval_results

# As the two publications number them; of TRIPOD+AI these items have parts a, b and so on.
PARTS = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}
ITEMS = {
    "CLAIM 2024": [str(item) for item in range(1, 45)],
    "TRIPOD+AI": [f"{item}{part}" for item in range(1, 28) for part in "abcdefg"[: PARTS.get(item, 0)] or ("",)],
}


@pytest.fixture
def figures() -> dict:
    finding = {"positives": 10, "negatives": 70, "auroc": 0.71, "auroc_ci": [0.6, 0.8]}
    return {
        "system": "org/cxr",
        "is_model": True,
        "source": "timm/nih-chest-xray-14@c1bf579",
        "split": "test",
        "protocol": "official",
        "images": 80,
        "patients": 40,
        "resamples": 1000,
        "resampled": "patients",
        "operating_point": "youden",
        "mean_auroc": 0.7234,
        "mean_auroc_ci": [0.68, 0.76],
        "coverage": {"without_scores": 0},
        "fitted_on": {"images": 200, "dataset": "d", "split": "validation", "positives": dict.fromkeys(FINDINGS, 10)},
        "baselines": {"patient_only": {"fitted_on": 900, "folds": None}},
        "subgroups": {"sex": {}, "age": {}},
        "findings": {name: dict(finding) for name in FINDINGS},
    }


@pytest.fixture
def metadata() -> pd.DataFrame:
    return pd.DataFrame({"age": [50.0, None, 70.0], "sex": ["F", "M", None], "view_position": ["PA", "AP", "AP"]})


def answers(page: str) -> dict[str, dict[str, str]]:
    """{form: {item: answer}}."""
    forms = {}
    for section in page.split("\n## ")[1:]:
        name, rows = section.split("\n", 1)
        forms[name] = dict(re.findall(r"^\| (\d+\w?) \| [^|]* \| (.*) \|$", rows, re.MULTILINE))
    return forms


def test_every_item_is_answered_or_open(figures, metadata):
    page, counts = write_checklists(figures, metadata, "seed: 7\noptimizer: adamw\n")
    forms = answers(page)
    assert {name: list(items) for name, items in forms.items()} == ITEMS
    claim, tripod = forms["CLAIM 2024"], forms["TRIPOD+AI"]
    assert claim["37"] == "Mean AUROC 0.723 (95 % interval 0.680 to 0.760); each finding in the card's table."
    assert claim["36"].startswith("age 60 years (quartiles 55 to 65); F 1, M 1; PA 1, AP 2; images with Atelectasis 10")
    assert "Atelectasis 5.0% and 12.5%" in tripod["16"]
    # Not all of the recipe is there, and the run had no boxes: these answers would be half true.
    assert claim["25"] == claim["31"] == tripod["17"] == "**open**"
    answered = sum(answer != "**open**" for answer in claim.values())
    assert f"CLAIM 2024: {answered} of 44 items answered" in counts


def test_nothing_about_our_package_is_said_of_others_predictions(figures, metadata):
    page, _ = write_checklists(figures | {"is_model": False}, metadata, None)
    forms = answers(page)
    assert {forms["CLAIM 2024"][item] for item in ("3", "22", "40", "43")} == {"**open**"}
    assert {forms["TRIPOD+AI"][item] for item in ("9a", "9b", "12g", "18f", "27a")} == {"**open**"}


def test_answers_name_only_facts_that_can_be_gathered(figures, metadata):
    """A misspelt name would leave its item always open."""
    boxes = {"findings": {"Mass": {"boxes": 3}}, "mean": {"pointing_accuracy": 0.5}}
    full = figures | {
        "localisation": {"model": boxes, "mean_box": boxes},
        "other_labels": {"images": 5, "table": "nih-google:x.csv"},
        "weights_digest": "ab" * 32,
    }
    recipe = {
        name: "x" for name in ("stored_size", "no_finding_share", "patient_dropout", "backbone_weights", "optimizer",
                               "learning_rate", "batch_size", "seed", "choose_by")
    } | {"cycles": [{"epochs": 1, "image_size": 64}], "loss": {"pos_weight": "balanced"}}  # fmt: skip
    facts = gather_facts(full, metadata, yaml.safe_dump(recipe))
    for form in FORMS:
        for item in yaml.safe_load((FOLDER / f"{form}.yaml").read_text())["items"]:
            names = set(re.findall(r"\{(\w+)\}", item.get("answer", "")))
            assert names <= set(facts), f"{form}, item {item['item']}"


def test_results_in_the_hubs_format(figures):
    figures["findings"]["Hernia"]["auroc"] = None
    ((path, content),) = eval_results(figures).items()
    assert path == ".eval_results/timm-nih-chest-xray-14.yaml"
    entries = {entry.task_id: entry for entry in parse_eval_result_entries(yaml.safe_load(content))}
    assert len(entries) == 14 and "auroc_hernia" not in entries
    mean = entries["mean_auroc"]
    assert (mean.dataset_id, mean.dataset_revision, mean.value) == ("timm/nih-chest-xray-14", "c1bf579", 0.7234)
    assert "95 % interval 0.6800 to 0.7600" in mean.notes
    assert eval_results(figures | {"source": "parquet:ward"}) == {}
