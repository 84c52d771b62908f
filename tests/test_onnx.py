"""ONNX files as a user makes and uses them: publish.py --onnx writes one, predict.py --backend onnx answers with it."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import predict
import publish
from configuration_cxrfpn import FINDINGS
from cxrfpn.data.sources import open_source
from cxrfpn.publishing import onnx_export, quantising
from exported_cxrfpn import BF16_KEY, DIGEST_KEY, INT8_KEY, OnnxRuntimeEngine, OpenVinoEngine
from loading_cxrfpn import load_pipeline
from package_cxrfpn import weights_digest
from patient_cxrfpn import Patient

ROOT = Path(__file__).resolve().parents[1]
PATIENT = {"age": 63, "sex": "F", "view_position": "AP"}


def run(script, *arguments: object) -> int:
    """A script's own main in this process, and its exit code, argparse's way out included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [f"{script.__name__}.py", *map(str, arguments)])
        try:
            return script.main()
        except SystemExit as stopped:
            return stopped.code


@pytest.fixture(scope="module")
def exported(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny package as one file."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert run(publish, package, "--onnx", path) == 0
    assert list(path.parent.iterdir()) == [path]
    return path


@pytest.fixture
def film(drawing: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "film.png"
    Image.fromarray(drawing).save(path)
    return path


def assert_same_logits(package: Path, file: Path, images: list, patients: list[tuple[float, float, float]]) -> None:
    """The file gives the network's logits, to 1e-4, of all images at once and of one alone."""
    pipe = load_pipeline(str(package))
    inputs = {
        "pixel_values": pipe.image_processor(images)["pixel_values"].contiguous(),
        "patient": torch.tensor(patients, dtype=torch.float32),
    }
    with torch.inference_mode():
        expected = pipe.model(**inputs).logits.numpy()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    (together,) = session.run(["logits"], arrays)
    (alone,) = session.run(["logits"], {name: array[:1] for name, array in arrays.items()})
    assert np.ptp(expected, axis=0).min() > 1e-3  # different images have different answers, so that equality says much
    assert together == pytest.approx(expected, abs=1e-4) and alone == pytest.approx(expected[:1], abs=1e-4)


def test_a_hundred_radiographs_get_the_logits_of_the_network(exported, package, drawing):
    images = [np.roll(drawing, shift, axis=1) for shift in range(100)]
    patients = [
        Patient(
            None if index % 3 == 0 else index,
            (None, "F", "M")[index % 3],
            ("PA", None, "AP", "PA")[index % 4],
        ).encode()
        for index in range(100)
    ]
    assert_same_logits(package, exported, images, patients)


@pytest.mark.slow
def test_the_released_model_on_real_radiographs(nih_mini, tmp_path):
    assert run(publish, ROOT, "--onnx", tmp_path / "model.onnx") == 0
    source = open_source(f"parquet:{nih_mini}")
    wanted = set(source.metadata().query("split == 'test'")["image_id"][:100])
    rows = [row for part in source.parts() for row in source.rows(part, wanted)]
    patients = [Patient(row.age, row.sex, row.view_position).encode() for row in rows]
    assert len(rows) == 100
    assert_same_logits(ROOT, tmp_path / "model.onnx", [row.image for row in rows], patients)


def test_the_file_says_all_that_a_package_says_and_nothing_of_this_machine(exported, package):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert {each.name: each.shape for each in session.get_inputs()} == {
        "pixel_values": ["batch", 3, 64, 64],
        "patient": ["batch", 3],
    }
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["thresholds.json"] == (package / "thresholds.json").read_text()
    assert json.loads(metadata["findings"]) == list(FINDINGS) and metadata["image_size"] == "64"
    assert metadata[DIGEST_KEY] == weights_digest(load_file(package / "model.safetensors"))
    content = exported.read_bytes()
    assert str(ROOT).encode() not in content and b"modeling_cxrfpn" not in content


def test_predict_gives_the_findings_of_the_pipeline(exported, package, film, capsys):
    """Calls, thresholds and probabilities too, of a patient half unknown; the file may lie in a folder."""
    pipe = load_pipeline(str(package))
    with torch.inference_mode():  # not by the pipeline itself, which may work in bf16
        inputs = pipe.preprocess({"image": film, "age": 63, "view_position": "AP"})
        logits = pipe.model(inputs["pixel_values"], inputs["patient"]).logits
    expected = pipe.postprocess({"logits": logits}, operating_point="youden")
    asked = ["--age", 63, "--view-position", "AP", "--operating-point", "youden", "--format", "json"]
    for model in (exported, exported.parent):
        assert run(predict, film, *asked, "--backend", "onnx", "--model", model) == 0
        (record,) = map(json.loads, capsys.readouterr().out.splitlines())
        assert len(record["findings"]) == 14
        for finding, its in zip(record["findings"], expected, strict=True):
            assert finding == {**its, "score": pytest.approx(its["score"], abs=1e-5),
                               "probability": pytest.approx(its["probability"], abs=1e-5)}  # fmt: skip


def test_a_batch_with_an_unreadable_file_in_it(exported, film, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    assert run(predict, tmp_path, "--format", "json", "--backend", "onnx", "--model", exported) == 2
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert "not an image" in first["error"] and len(second["findings"]) == 14


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "onnx", "--model", "empty"], "empty/model.onnx: no such file; publish.py RUN --onnx"),
        (["--backend", "onnx", "--model", "broken.onnx"], "broken.onnx: onnxruntime cannot load it"),
        (["--backend", "onnx", "--model", "foreign.onnx"], "foreign.onnx: its metadata lack findings, thresholds.json"),
        (["--backend", "openvino", "--model", "broken.onnx"], "broken.onnx: OpenVINO cannot load it"),
        (["--backend", "openvino", "--model", "foreign.onnx"], "foreign.onnx: its metadata lack findings, thresholds."),
        (["--backend", "torch", "--model", "model.onnx"], "model.onnx: torch reads no ONNX files; leave --backend"),
    ],
)
def test_wrong_use_of_predict_is_one_clear_line(exported, film, monkeypatch, capsys, arguments, said):
    folder = film.parent
    shutil.copy(exported, folder)
    (folder / "empty").mkdir()
    (folder / "broken.onnx").write_bytes(exported.read_bytes()[:1000])
    foreign = onnx.load(exported)
    del foreign.metadata_props[:]
    onnx.save(foreign, folder / "foreign.onnx")
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    assert run(predict, film.name, "--output", "out.csv", "--format", "csv", *arguments) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert sum(line.startswith(("predict: ", "predict.py: error: ")) for line in err.splitlines()) == 1
    assert set(folder.iterdir()) == before


def test_without_onnxruntime_the_extra_is_named(exported, package, film, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run(predict, film, "--backend", "onnx", "--model", exported) == 2
    assert "onnxruntime" in (err := capsys.readouterr().err) and "cxr-densenet-fpn[onnx]" in err
    assert run(publish, package, "--onnx", tmp_path / "model.onnx") == 2
    assert "onnxruntime" in (err := capsys.readouterr().err) and "cxr-densenet-fpn[onnx]" in err


def other_weights(package: Path) -> None:
    points = json.loads((package / "thresholds.json").read_text())
    points["fitted_on"] = {"weights_digest": "0" * 64}
    (package / "thresholds.json").write_text(json.dumps(points))


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (lambda package: (package / "model.safetensors").unlink(), ["--onnx", "x.onnx"], "lacks model.safetensors"),
        (other_weights, ["--onnx", "x.onnx"], "was fitted on other weights"),
        (lambda _: None, ["--onnx", "nowhere/x.onnx"], "there is no folder nowhere"),
        (lambda _: None, ["--onnx", "x.onnx", "--int8", "phantom:none"], "is not a number of drawings"),
        (lambda _: None, ["--onnx", "x.onnx", "--int8", "parquet:none"], "none"),
        (lambda _: None, ["--onnx", "x.onnx", "--model-repo", "a/b"], "leave --model-repo out"),
        (lambda _: None, ["--int8", "phantom:9", "--model-repo", "a/b", "--space-repo", "a/b"], "--int8 goes with"),
        (lambda _: None, ["--model-repo", "a/b"], "give both --model-repo and --space-repo, or --onnx FILE"),
    ],
)
def test_wrong_use_of_publish_is_one_clear_line(
    package, tmp_path, monkeypatch, capsys, spoil: Callable[[Path], None], arguments, said
):
    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    spoil(copy)
    monkeypatch.chdir(tmp_path)
    assert run(publish, "copy", *arguments) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == [copy]


def test_a_file_that_answers_otherwise_is_not_written(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    (tmp_path / "model.onnx").write_bytes(b"as it was")
    assert run(publish, package, "--onnx", tmp_path / "model.onnx") == 2
    assert "logits are up to" in capsys.readouterr().err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"as it was"]


@pytest.mark.parametrize("limit", [1.0, -1.0])
def test_int8_is_measured_and_kept_or_refused(exported, package, film, tmp_path, monkeypatch, capsys, limit):
    monkeypatch.setattr(quantising, "LARGEST_FALL", limit)
    monkeypatch.setattr(quantising, "CALIBRATION_IMAGES", 8)
    path = tmp_path / "int8.onnx"
    code = run(publish, package, "--onnx", path, "--int8", "phantom:120")
    out, err = capsys.readouterr()
    assert "int8 on" in (err if limit < 0 else out) and "mean AUROC" in out + err
    if limit < 0:
        assert code == 2 and "not written" in err and list(tmp_path.iterdir()) == [film]
        return
    assert code == 0, err
    kinds = {each.data_type for each in onnx.load(path).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    engines = [OnnxRuntimeEngine(path), OpenVinoEngine(path), OnnxRuntimeEngine(exported)]
    assert [engine.precision for engine in engines] == ["int8", "int8", "fp32"]
    metadata = dict(engines[0].metadata)
    figures = json.loads(metadata.pop(INT8_KEY))
    assert metadata.items() >= engines[2].metadata.items()
    assert figures["split"] == "test" and figures["all"]["images"] > 10
    scores = [{each["label"]: each["score"] for each in engine({"image": film, **PATIENT})} for engine in engines]
    for int8 in scores[:2]:
        assert int8 == pytest.approx(scores[2], abs=0.02) and int8 != scores[2]


@pytest.mark.parametrize("limit", [1.0, -1.0])
def test_bf16_is_measured_and_allowed_or_refused(exported, package, film, tmp_path, monkeypatch, capsys, limit):
    if not OpenVinoEngine(exported).multiplies_bf16():
        pytest.skip("this CPU does not multiply bf16")
    monkeypatch.setattr(quantising, "LARGEST_FALL", limit)
    path = tmp_path / "bf16.onnx"
    code = run(publish, package, "--onnx", path, "--bf16", "phantom:120")
    out, err = capsys.readouterr()
    assert "bf16 on" in (err if limit < 0 else out) and "mean AUROC" in out + err
    if limit < 0:
        assert code == 2 and "not written" in err and list(tmp_path.iterdir()) == [film]
        return
    assert code == 0, err
    # Only a file that was measured in bf16 is computed in it.
    engine = OpenVinoEngine(path)
    assert (engine.precision, OpenVinoEngine(exported).precision) == ("bf16", "fp32")
    assert json.loads(engine.metadata[BF16_KEY])["all"]["images"] > 10


def test_a_file_that_answers_with_no_numbers_is_not_written(package, tmp_path, monkeypatch, capsys):
    def run_wrongly(engine, pixel_values, patient, wanted):
        return dict.fromkeys(wanted, np.full((1, 14), np.nan))

    monkeypatch.setattr(OnnxRuntimeEngine, "run", run_wrongly)
    assert run(publish, package, "--onnx", tmp_path / "model.onnx") == 2
    assert "logits are up to nan off" in capsys.readouterr().err and not list(tmp_path.iterdir())
