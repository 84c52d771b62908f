"""Two own findings, some labels unknown, from a table all the way: train, card, predict, ONNX, publish, demo."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import predict
import publish
import score
import train
from configuration_cxrfpn import FINDINGS
from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.sources import open_source
from cxrfpn.training.backbone import load_backbone_weights
from cxrfpn.training.recipe import read_recipe
from loading_cxrfpn import load_network, load_pipeline
from modeling_cxrfpn import CxrFpnForImageClassification
from tests.chromium import running_browser
from tests.hubs.uploads import UploadHub
from tests.servers import running_demo

OWN = ["Cardiac enlargement", "Fluid/left"]
NETWORK = {"block_config": [1, 1, 1, 1], "growth_rate": 4, "stem_channels": 8, "pyramid_channels": 8,
           "image_features": 8, "head_features": 8}  # fmt: skip


def main(script: object, *arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["script.py", *map(str, arguments)])
        return script.main()


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 150 phantoms: every ninth label is unknown, by an empty cell or by -1."""
    folder, rows = tmp_path_factory.mktemp("ward"), []
    source = PhantomSource(150, side=72)
    for part in source.parts():
        for row in source.rows(part):
            (folder / f"{row.image_id}.png").write_bytes(row.image)
            labels = ["Cardiomegaly" in row.findings, "Effusion" in row.findings]
            rows.append({"image": f"{row.image_id}.png", "patient": row.patient_id, "age": row.age, "sex": row.sex,
                         **dict(zip(OWN, map(int, labels), strict=True))})  # fmt: skip
    table = pd.DataFrame(rows).astype({name: object for name in OWN})
    table.loc[::9, OWN[0]], table.loc[4::9, OWN[1]] = "", -1
    table.to_csv(folder / "ward.csv", index=False)
    return folder / "ward.csv"


@pytest.fixture(scope="module")
def run(ward: Path, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, trained from the tiny package."""
    folder = tmp_path_factory.mktemp("own")
    recipe = {
        "source": f"csv:{ward}", "findings": OWN, "cohort": {"protocol": "patients", "validation": 0.25, "test": 0.25},
        "prepared": str(folder / "prepared"), "stored_size": 72, "cycles": [{"epochs": 1, "image_size": 64}],
        "network": NETWORK, "batch_size": 16, "precision": "fp32", "backbone_weights": str(package), "trackers": [],
    }  # fmt: skip
    (folder / "own.yaml").write_text(yaml.safe_dump(recipe))
    assert main(train, folder / "own.yaml", "--output-dir", folder / "run") == 0
    return folder / "run"


def test_a_run_is_a_package_of_its_own_findings(run, ward):
    fitted = json.loads((run / "thresholds.json").read_text())
    assert all(set(point) == set(OWN) for point in fitted["operating_points"].values())
    counts = fitted["fitted_on"]
    assert set(counts["positives"]) == set(OWN) and 0 < counts["known"][OWN[0]] < counts["images"]
    metrics = json.loads((run / "metrics.json").read_text())
    for name in OWN:
        figure = metrics["findings"][name]
        assert figure["unknown"] > 0
        assert figure["positives"] + figure["negatives"] + figure["unknown"] == metrics["images"]
        assert np.sum(figure["confusion"]) == figure["positives"] + figure["negatives"]
    card = (run / "README.md").read_text()
    assert (
        f"Finds 2 findings ({', '.join(OWN)})" in card and f"Unknown, and left out of every figure: {OWN[0]} on" in card
    )
    assert {path.stem for path in (run / "plots").glob("*.png")} >= {"auroc", "roc", "calibration", "confusion"}


def test_known_findings_keep_their_rows(package, tmp_path):
    recipe = {"source": "csv:none", "findings": ["TB", "Pleural Effusion"], "cycles": [{"epochs": 1, "image_size": 64}],
              "network": NETWORK}  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(recipe))
    network = CxrFpnForImageClassification(read_recipe(tmp_path / "own.yaml").config())
    load_backbone_weights(network, str(package))
    old = load_network(str(package))
    assert network.findings == ("TB", "Pleural Effusion")
    assert (network.head[3].weight[1] == old.head[3].weight[FINDINGS.index("Effusion")]).all()
    assert (network.image_branch.weight == old.image_branch.weight).all()


def test_it_predicts_explains_and_reopens(run, ward, tmp_path, capsys):
    film = sorted(ward.parent.glob("*.png"))[0]
    assert main(predict, film, "--model", run, "--format", "csv", "--maps", tmp_path / "maps") == 0
    header, _ = csv.reader(capsys.readouterr().out.splitlines())
    assert header[-2:] == OWN
    load_pipeline(str(run)).save_pretrained(tmp_path / "again")
    again, pipe = load_pipeline(str(tmp_path / "again")), load_pipeline(str(run))
    assert again(film) == pipe(film) and {each["label"] for each in pipe(film)} == set(OWN)
    assert main(score, "--model", tmp_path / "again", "--source", f"csv:{ward}", "--split", "all", "--output-dir",
                tmp_path / "scores", "--resamples", 20, "--no-examples") == 0  # fmt: skip
    assert set(json.loads((tmp_path / "scores" / "metrics.json").read_text())["findings"]) == set(OWN)
    table = pd.read_parquet(tmp_path / "scores" / "predictions.parquet")
    assert set(OWN) <= set(table.columns) and len(table) == 150


def test_an_archive_and_onnx_have_its_names(run, ward, tmp_path, capsys):
    assert main(predict, "--source", f"csv:{ward}", "--model", run, "--output", tmp_path / "archive") == 0
    table = pd.read_parquet(tmp_path / "archive" / "parts")
    assert set(OWN) <= set(table.columns) and not set(FINDINGS) & set(table.columns) and len(table) == 150
    assert main(publish, run, "--onnx", tmp_path / "model.onnx") == 0
    film = sorted(ward.parent.glob("*.png"))[0]
    capsys.readouterr()
    assert main(predict, film, "--backend", "onnx", "--model", tmp_path / "model.onnx", "--format", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    expected = {each["label"]: each["score"] for each in load_pipeline(str(run))(film)}
    assert {each["label"]: each["score"] for each in answer["findings"]} == pytest.approx(expected, abs=5e-3)


def test_it_is_published_and_opened_from_the_hub(run, ward, tmp_path, monkeypatch):
    with UploadHub(tmp_path / "hub") as hub:
        hub.take_over(monkeypatch)
        assert main(publish, run, "--model-repo", "org/own", "--space-repo", "org/own-demo") == 0
        content = hub.content("models", "org/own")
    folder = tmp_path / "fetched"
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    film = sorted(ward.parent.glob("*.png"))[0]
    assert load_pipeline(str(folder))(film) == load_pipeline(str(run))(film)


@pytest.fixture
def page(run: Path, tmp_path: Path) -> Iterator[object]:
    with running_browser() as browser, running_demo(run, tmp_path) as demo:
        page = browser.new_page()
        page.goto(demo.address)
        yield page


@pytest.mark.slow
def test_the_demo_shows_its_findings(page, ward):
    page.set_input_files("#upload input[type=file]", sorted(ward.parent.glob("*.png"))[0])
    page.wait_for_selector(".reading")
    rows = page.locator(".finding").evaluate_all("rows => rows.map(row => row.dataset.finding)")
    assert sorted(rows) == sorted(OWN)


def test_a_source_of_other_findings_is_refused(ward):
    with pytest.raises(ValueError, match="has neither a column of findings nor columns named by findings"):
        open_source(f"csv:{ward}", findings=("TB",)).metadata()


def test_shards_of_other_findings_are_refused(run, ward, capsys, tmp_path):
    folder = tmp_path / "run"
    shutil.copy(run.parent / "own.yaml", tmp_path / "other.yaml")
    assert (
        main(train, tmp_path / "other.yaml", "--output-dir", folder, "--findings", "[TB, 'Cardiac enlargement']") == 2
    )
    assert "holds the finding Fluid/left, none of TB, Cardiac enlargement; prepare" in capsys.readouterr().err
