"""What transformers' own ways of saving write opens again everywhere, with thresholds that know their weights."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments, pipeline

from configuration_cxrfpn import FINDINGS
from cxrfpn.publishing.contents import package_modules
from loading_cxrfpn import load_network, load_pipeline
from modeling_cxrfpn import CxrFpnForImageClassification
from package_cxrfpn import PROCESSOR, THRESHOLDS, WEIGHTS, weights_digest
from tests.hubs.uploads import UploadHub

MODULES = package_modules(Path(__file__).resolve().parents[1])

POINTS = {"default": "a", "operating_points": {"a": {name: 0.2 + 0.01 * n for n, name in enumerate(FINDINGS)}}}


@pytest.fixture(scope="module")
def fitted(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny package with thresholds that say which weights they were fitted on, and a processor of its own."""
    folder = Path(shutil.copytree(package, tmp_path_factory.mktemp("fitted") / "package"))
    digest = weights_digest(load_network(str(folder)).state_dict())
    (folder / THRESHOLDS).write_text(json.dumps({**POINTS, "fitted_on": {"weights_digest": digest}}))
    settings = json.loads((folder / PROCESSOR).read_text())
    (folder / PROCESSOR).write_text(json.dumps({**settings, "crop_fraction": 0.8}))
    return folder


def save_pipe(source: Path, folder: Path) -> None:
    pipeline("chest-xray-findings", model=str(source), trust_remote_code=True).save_pretrained(folder)


def save_our_pipe(source: Path, folder: Path) -> None:
    load_pipeline(str(source)).save_pretrained(folder)


def save_model(source: Path, folder: Path) -> None:
    AutoModelForImageClassification.from_pretrained(source, trust_remote_code=True).save_pretrained(folder)


def save_by_trainer(source: Path, folder: Path) -> None:
    arguments = TrainingArguments(str(folder.parent / "trainer"), report_to=[], use_cpu=True)
    Trainer(model=load_network(str(source)), args=arguments).save_model(str(folder))


@pytest.mark.parametrize("save", [save_pipe, save_our_pipe, save_model, save_by_trainer])
def test_what_is_saved_opens_again(fitted, drawing, tmp_path, caplog, save):
    save(fitted, tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").glob("*.py")} >= set(MODULES)
    transformers.logging.enable_propagation()
    again = load_pipeline(str(tmp_path / "saved"))
    assert "fitted on other weights" not in caplog.text and "no thresholds" not in caplog.text
    answer, expected = again(drawing), load_pipeline(str(fitted))(drawing)
    assert answer == expected and answer[0]["threshold"] not in (0.5, None)
    assert again.image_processor.crop_fraction == 0.8
    for task, options in (("chest-xray-findings", {}), ("image-classification", {"top_k": 14})):
        pipe = pipeline(task, model=str(tmp_path / "saved"), trust_remote_code=True, **options)
        assert len(pipe(Image.fromarray(drawing))) == 14


def test_after_further_training_thresholds_are_of_other_weights(fitted, tmp_path, caplog):
    model = load_network(str(fitted))
    with torch.no_grad():
        model.head[-1].weight.mul_(1.1)
    model.save_pretrained(tmp_path)
    transformers.logging.enable_propagation()
    pipe = load_pipeline(str(tmp_path))
    assert "fitted on other weights" in caplog.text and pipe.thresholds.at(None) == POINTS["operating_points"]["a"]


def test_the_weights_in_memory_are_what_is_compared(fitted, caplog):
    """A head that is initialised again in memory, whose file is unchanged."""
    pipe = load_pipeline(str(fitted))
    pipe.model.head[-1].reset_parameters()
    transformers.logging.enable_propagation()
    type(pipe)(model=pipe.model, image_processor=pipe.image_processor)
    assert "fitted on other weights" in caplog.text


def test_a_digest_is_of_values_in_any_precision(tiny_model):
    tiny_model.half().float()  # as packages store weights
    digest = weights_digest(tiny_model.state_dict())
    low, channels_last = (
        copy.deepcopy(tiny_model).half(),
        copy.deepcopy(tiny_model).to(memory_format=torch.channels_last),
    )
    for same in (low, channels_last, copy.deepcopy(tiny_model).bfloat16()):
        assert weights_digest(same.state_dict()) == digest
    with torch.no_grad():
        tiny_model.backbone.features.conv0.weight[0, 0, 0, 0] += 0.01
    assert weights_digest(tiny_model.state_dict()) != digest


def test_what_is_pushed_opens_again(fitted, drawing, tmp_path, monkeypatch):
    with UploadHub(tmp_path / "hub") as hub:
        hub.take_over(monkeypatch)
        load_network(str(fitted)).push_to_hub("org/pushed")
        load_network(str(fitted)).save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="org/saved")
        for name in ("org/pushed", "org/saved"):
            content = hub.content("models", name)
            assert set(content) >= {*MODULES, WEIGHTS, PROCESSOR, THRESHOLDS, "config.json"}
            for file, data in content.items():
                (tmp_path / name).mkdir(parents=True, exist_ok=True)
                (tmp_path / name / file).write_bytes(data)
            assert load_pipeline(str(tmp_path / name))(drawing) == load_pipeline(str(fitted))(drawing)


def test_a_network_that_was_made_saves_a_whole_package(tiny_config, tmp_path):
    CxrFpnForImageClassification(tiny_config()).save_pretrained(tmp_path)
    pipe = load_pipeline(str(tmp_path))
    assert pipe.image_processor.size.height == 64 and set(pipe.thresholds.at(None).values()) == {0.5}
