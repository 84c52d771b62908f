"""Every engine gives what torch gives; the fastest is chosen; and a cold start imports no more than it needs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxrfpn.choices import LABEL_TABLE_NAMES, PROTOCOL_NAMES
from cxrfpn.data.cohort import PROTOCOLS
from cxrfpn.data.label_tables import LABEL_TABLES
from cxrfpn.publishing.onnx_export import export_onnx, random_inputs
from engine_cxrfpn import load_engine
from exported_cxrfpn import OnnxRuntimeEngine, OpenVinoEngine
from image_processing_cxrfpn import CxrFpnImageProcessor
from loading_cxrfpn import load_pipeline
from modeling_cxrfpn import CxrFpnForImageClassification
from package_cxrfpn import THRESHOLDS

WANTED = ("logits", "probabilities", "maps", "embedding")
# Each kind of head whose gradient the graph writes out.
HEADS = {
    "whole": {},
    "soft": {"pooling_sharpness": 2.0},
    "without the patient": {"patient_features": 0},
    "linear": {"head_features": 0},
    "pooled features alone": {"image_features": 0, "pyramid_channels": 0, "head_features": 0},
    "of the report": {"rectified": False, "image_features": 0},
    "scores": {"pooling": "scores", "pooling_sharpness": 1.0},
}


@pytest.fixture(scope="module")
def exported(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny package with its model.onnx beside it."""
    folder = Path(shutil.copytree(package, tmp_path_factory.mktemp("engines") / "package"))
    export_onnx(load_pipeline(str(folder)), folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def film(drawing: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "film.png"
    Image.fromarray(drawing).save(path)
    return path


def assert_equal_to_torch(folder: Path, file: Path) -> None:
    """Logits, probabilities, maps and embedding of both engines, to 1e-4, for batches of several sizes."""
    pipe = load_pipeline(str(folder))
    engines = OnnxRuntimeEngine(file), OpenVinoEngine(file, "fp32")
    for batch in (3, 1, 5):
        inputs = random_inputs(pipe, batch)
        with torch.inference_mode():
            output = pipe.model(**inputs)
        answers = [pipe.postprocess({"logits": row[None]}) for row in output.logits]
        by_name = [{each["label"]: each["probability"] for each in answer} for answer in answers]
        expected = {
            "logits": output.logits.numpy(),
            "embedding": output.pooler_output.numpy(),
            "maps": pipe.model.finding_maps(**inputs).numpy(),
            "probabilities": np.array(
                [[np.nan if row[name] is None else row[name] for name in pipe.model.findings] for row in by_name]
            ),
        }
        for engine in engines:
            for name, values in engine.run(*(each.numpy() for each in inputs.values()), WANTED).items():
                np.testing.assert_allclose(values, expected[name], atol=1e-4, err_msg=f"{engine.backend}: {name}")


@pytest.mark.parametrize(
    "head", [head if head == "scores" else pytest.param(head, marks=pytest.mark.slow) for head in HEADS]
)
def test_one_graph_gives_what_torch_gives_for_every_kind_of_head(head, package, tiny_config, tmp_path):
    torch.manual_seed(1)
    CxrFpnForImageClassification(tiny_config(**HEADS[head])).save_pretrained(tmp_path)
    CxrFpnImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    points = json.loads((package / THRESHOLDS).read_text())
    del points["calibration"]["Hernia"]
    (tmp_path / THRESHOLDS).write_text(json.dumps(points))
    export_onnx(load_pipeline(str(tmp_path)), tmp_path / "model.onnx")
    assert_equal_to_torch(tmp_path, tmp_path / "model.onnx")


def test_the_graph_gives_what_torch_gives(exported):
    assert_equal_to_torch(exported, exported / "model.onnx")


@pytest.mark.parametrize("backend", ["onnx", "openvino", "torch"])
def test_every_engine_answers_alike(backend, exported, film):
    engine = load_engine(str(exported), backend)
    assert (engine.backend, engine.source.startswith(str(exported))) == (backend, True)
    inputs = [{"image": film, "age": 63, "sex": "F"}, film]
    expected = load_engine(str(exported), "torch")(inputs, operating_point="youden", maps=True)
    answers = engine(inputs, operating_point="youden", maps=True)
    for answer, its in zip(answers, expected, strict=True):
        assert answer.fit == its.fit is not None and answer.notes == its.notes
        by_name = {finding["label"]: finding for finding in answer}
        for finding in its:
            mine = by_name[finding["label"]]
            for key in ("score", "probability", "threshold"):  # the pipeline may work in bf16
                assert mine[key] == pytest.approx(finding[key], abs=5e-3)
            np.testing.assert_allclose(mine["map"], finding["map"], atol=0.15)
    prepared = [engine.prepare(each) for each in inputs]
    embedding = engine.answer(prepared, embeddings=True)[1].embedding
    assert embedding.shape == (24,) and np.ptp(embedding) > 0


def test_pixels_are_those_of_the_processor_in_torch(exported, drawing):
    engine, pipe = (load_engine(str(exported), name) for name in ("onnx", "torch"))
    prepared = engine.prepare({"image": drawing, "age": 30, "view_position": "LATERAL"})
    expected = pipe.prepare({"image": drawing, "age": 30, "view_position": "LATERAL"})
    pixel_values = engine.preparation.normalise([prepared.crop])
    np.testing.assert_allclose(pixel_values, expected["pixel_values"].numpy(), atol=1e-6)
    assert prepared.notes == expected["notes"] and prepared.notes
    np.testing.assert_array_equal(np.float32(prepared.patient), expected["patient"][0].numpy())


def test_the_fastest_engine_with_a_file_is_chosen(exported, package, monkeypatch):
    assert load_engine(str(exported)).backend == "openvino"
    assert load_engine(str(exported / "model.onnx")).backend == "openvino"
    assert load_engine(str(package)).backend == "torch"
    monkeypatch.setattr("engine_cxrfpn.find_spec", lambda name: None if name == "openvino" else name)
    assert load_engine(str(exported)).backend == "onnx"


def test_a_file_of_other_weights_is_not_used(exported, tmp_path, capsys):
    folder = Path(shutil.copytree(exported, tmp_path / "package"))
    torch.manual_seed(2)
    config = load_pipeline(str(folder)).model.config
    CxrFpnForImageClassification(config).save_pretrained(folder)
    assert load_engine(str(folder)).backend == "torch"
    err = capsys.readouterr().err
    assert "model.onnx is not used: it was made from another model.safetensors; write it again with publish.py" in err
    with pytest.raises(ValueError, match="it was made from another model.safetensors"):
        load_engine(str(folder), "onnx")


def test_scores_that_are_no_numbers_are_refused(exported, drawing, monkeypatch):
    engine = load_engine(str(exported), "onnx")
    monkeypatch.setattr(engine, "run", lambda *_: {"logits": np.full((1, 14), np.nan, np.float32)})
    with pytest.raises(ValueError, match="model.onnx: gives scores that are no numbers"):
        engine(drawing)


# What each command may not import, and the command.
HEAVY = ("torch", "torchvision", "transformers", "pandas", "scipy", "sklearn", "matplotlib", "gradio", "datasets")
ENGINES = ("onnxruntime", "openvino", "numpy")
COLD = {
    "predict by onnxruntime": ((*HEAVY, "openvino"), ["predict.py", "FILM", "--backend", "onnx", "--model", "MODEL"]),
    "predict by openvino": (
        (*HEAVY, "onnxruntime"),
        ["predict.py", "FILM", "--backend", "openvino", "--model", "MODEL"],
    ),
    "predict by the fastest": (HEAVY, ["predict.py", "FILM", "--model", "MODEL", "--format", "json"]),
    "maps": (HEAVY, ["predict.py", "FILM", "--model", "MODEL", "--maps", "MAPS"]),
}
RUN = """
import json, runpy, sys
sys.argv = json.loads(sys.argv[1])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stopped:
    code = stopped.code
print(json.dumps([code, sorted(name for name in sys.modules if "." not in name)]), file=sys.stderr)
"""


def imported(run_python, command: list[str]) -> tuple[int, set[str]]:
    """The exit code of a script in a process of its own, and the modules that it had imported at its end."""
    done = run_python("-c", RUN, json.dumps(command))
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize("what", COLD)
def test_a_cold_prediction_imports_no_more_than_it_needs(what, run_python, exported, film, tmp_path):
    unwanted, command = COLD[what]
    places = {"FILM": str(film), "MODEL": str(exported), "MAPS": str(tmp_path / "maps")}
    code, modules = imported(run_python, [places.get(word, word) for word in command])
    assert code == 0 and modules.isdisjoint(unwanted), modules & set(unwanted)


def test_what_help_lists_is_what_there_is():
    assert (tuple(PROTOCOLS), tuple(LABEL_TABLES)) == (PROTOCOL_NAMES, LABEL_TABLE_NAMES)


@pytest.mark.parametrize("script", ["app", "predict", "prepare", "publish", "score", "train"])
@pytest.mark.parametrize("option", ["--help", "--no-such-option"])
def test_help_and_usage_errors_import_nothing_heavy(script, option, run_python):
    code, modules = imported(run_python, [f"{script}.py", option])
    assert code == (0 if option == "--help" else 2)
    assert modules.isdisjoint(HEAVY + ENGINES), modules & set(HEAVY + ENGINES)
