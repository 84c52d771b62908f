"""The one inference path: what goes in, what comes out, in a process that knows nothing of this repository."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from datasets import Dataset, Features
from datasets import Image as DatasetImage
from PIL import Image
from safetensors.torch import load_file
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from configuration_cxrfpn import FINDINGS
from gate_cxrfpn import LEAST_FIT, NOTE
from loading_cxrfpn import load_pipeline
from modeling_cxrfpn import CxrFpnForImageClassification
from package_cxrfpn import weights_digest
from patient_cxrfpn import Patient
from pipeline_cxrfpn import ChestXrayFindingsPipeline, cpu_multiplies_bf16, uses_bf16
from radiograph_cxrfpn import Radiograph
from thresholds_cxrfpn import Thresholds

# Where the CPU multiplies bf16 in hardware, the pipeline uses it: 8 bits of precision, so scores agree to about 0.002.
SAME = 5e-3 if cpu_multiplies_bf16() else 1e-6


@pytest.fixture(scope="module")
def pipe(package: Path) -> ChestXrayFindingsPipeline:
    return load_pipeline(str(package))


def expected_scores(package: Path, pipe: ChestXrayFindingsPipeline, image: object, patient: tuple) -> dict[str, float]:
    model = CxrFpnForImageClassification.from_pretrained(package).eval()
    with torch.no_grad():
        logits = model(pipe.image_processor(image)["pixel_values"], torch.tensor([patient])).logits[0]
    return dict(zip(FINDINGS, torch.sigmoid(logits).tolist(), strict=True))


def test_fourteen_findings_sorted_by_score_with_their_calls(package, pipe, drawing):
    findings = pipe({"image": drawing, "age": 63, "sex": "F", "view_position": "PA"})
    scores = expected_scores(package, pipe, drawing, Patient(63, "F", "PA").encode())
    assert sorted(each["label"] for each in findings) == sorted(FINDINGS)
    assert findings == sorted(findings, key=lambda finding: finding["score"], reverse=True)
    for finding in findings:
        score = finding["score"]
        assert score == pytest.approx(scores[finding["label"]], abs=SAME)
        logit = np.log(score / (1 - score))
        assert finding["probability"] == pytest.approx(1 / (1 + np.exp(-(1.5 * logit - 1.0))), abs=1e-6)
        assert finding["threshold"] == 0.5 and finding["positive"] == (finding["score"] >= 0.5)


def test_the_patient_matters_and_may_be_unknown(pipe, drawing):
    def scores(**patient: object) -> dict[str, float]:
        return {each["label"]: each["score"] for each in pipe({"image": drawing, **patient})}

    unknown = scores()
    assert unknown == scores(age=None, sex=None, view_position=None)
    assert unknown == {each["label"]: each["score"] for each in pipe(drawing)}
    assert unknown != scores(age=0, sex="M", view_position="PA")
    assert scores(age=80) != scores(age=20)


def test_a_dicom_header_fills_in_what_is_not_told(pipe, drawing):
    header = Radiograph(drawing, age=50.0, sex="F", view_position="AP")
    findings = pipe({"image": drawing, "age": 50, "sex": "F", "view_position": "AP"})
    assert pipe(header) == findings
    assert pipe({"image": header, "age": 20}) == pipe({"image": drawing, "age": 20, "sex": "F", "view_position": "AP"})


def test_operating_points_change_the_calls_only(pipe, drawing):
    default, youden = pipe(drawing), pipe(drawing, operating_point="youden")
    for one, other in zip(default, youden, strict=True):
        assert (one["label"], one["score"]) == (other["label"], other["score"])
        assert other["threshold"] == pytest.approx(0.3 + 0.01 * FINDINGS.index(other["label"]))
    with pytest.raises(ValueError, match="no operating point is called 'best'; known are dynamic_adjustment, you"):
        pipe(drawing, operating_point="best")


def test_a_batch_gives_what_single_calls_give(pipe, drawing):
    images = [drawing, drawing[::-1].copy(), drawing[:, ::-1].copy()]
    for batch in (pipe(images, batch_size=3), list(pipe((image for image in images), batch_size=2))):
        for several, image in zip(batch, images, strict=True):
            single = {each["label"]: each["score"] for each in pipe(image)}
            assert {each["label"]: each["score"] for each in several} == pytest.approx(single, abs=SAME)


def test_maps_come_with_the_findings_they_belong_to(package, pipe, drawing):
    findings = pipe([drawing, drawing[::-1].copy()], maps=True, batch_size=2)[1]
    model = CxrFpnForImageClassification.from_pretrained(package).eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16(model.device, model.dtype)):
        expected = model.finding_maps(pipe.image_processor(drawing[::-1].copy())["pixel_values"])[0]
    assert expected.dtype == torch.float32
    for finding in findings:
        np.testing.assert_allclose(finding["map"], expected[FINDINGS.index(finding["label"])], atol=10 * SAME)


def test_wrong_inputs_are_named(pipe, drawing, tmp_path):
    with pytest.raises(ValueError, match="needs the key 'image'"):
        pipe({"age": 80})
    with pytest.raises(ValueError, match="age .old. is not a number"):
        pipe({"image": drawing, "age": "old"})
    with pytest.raises(ValueError, match=r"gone\.png: cannot be read \(no such file\)"):
        pipe(str(tmp_path / "gone.png"))
    with pytest.raises(TypeError, match="takes no parameter threshold"):
        pipe(drawing, threshold=0.5)


def test_inputs_as_the_ecosystem_gives_them(pipe, drawing, tmp_path, caplog):
    path = tmp_path / "film.png"
    Image.fromarray(drawing).save(path)
    stored = {"bytes": path.read_bytes(), "path": None}
    expected, unknown = pipe({"image": path, "age": 60, "sex": "F"}), pipe(path)
    assert pipe(stored) == pipe({"bytes": None, "path": str(path)}) == unknown
    table = pd.DataFrame({"image": [str(path)] * 2, "age": [60, None], "sex": ["F", None], "ward": ["A3", "B1"]})
    for rows in (
        [row for _, row in table.convert_dtypes().iterrows()],
        list(table.convert_dtypes().itertuples()),
        table.to_dict("records"),
        list(Dataset.from_dict({"image": [stored] * 2, "age": [60, None], "sex": ["F", None], "ward": ["A3", "B1"]})),
    ):
        transformers.logging.enable_propagation()
        assert pipe(rows) == [expected, unknown]
    assert caplog.text.count("not read of an input: ward; read are image, age, sex, view_position") == 1
    data = Dataset.from_dict({"film": [stored] * 3}, Features({"film": DatasetImage(decode=False)}))
    for several in (
        KeyDataset(data, "film"),
        (path for _ in range(3)),
        (row for row in table.to_dict("records")[1:] * 3),
    ):
        assert list(pipe(several)) == [unknown] * 3


def test_an_embedding_comes_with_the_answer(pipe, drawing):
    plain, answer = pipe(drawing), pipe(drawing, embedding=True, maps=True)
    assert [each["label"] for each in answer] == [each["label"] for each in plain] and plain.embedding is None
    with torch.no_grad():
        pooled = pipe.model(pipe.image_processor(drawing)["pixel_values"]).pooler_output[0].numpy()
    np.testing.assert_allclose(answer.embedding, pooled, atol=20 * SAME)
    assert answer.embedding.shape == (24,) and "map" in answer[0]


FRESH = """
import json, sys
from transformers import pipeline
findings = pipeline("chest-xray-findings", model=sys.argv[1], trust_remote_code=True)(sys.argv[2])
plain = pipeline("image-classification", model=sys.argv[1], trust_remote_code=True, top_k=14)(sys.argv[2])
print(json.dumps({"findings": findings, "plain": plain}))
"""


def test_both_pipelines_work_from_a_package_alone(package, pipe, drawing, tmp_path, run_python):
    path = tmp_path / "drawing.png"
    Image.fromarray(drawing).save(path)
    done = run_python("-c", FRESH, package, path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    scores = {each["label"]: each["score"] for each in pipe(path)}
    assert {each["label"]: each["score"] for each in answer["findings"]} == pytest.approx(scores, abs=1e-6)
    # transformers' own pipeline: a sigmoid for each finding, not a softmax over them.
    assert {each["label"]: each["score"] for each in answer["plain"]} == pytest.approx(scores, abs=max(1e-5, SAME))


def package_with(package: Path, folder: Path, thresholds: object) -> Path:
    shutil.copytree(package, folder)
    (folder / "thresholds.json").write_text(thresholds if isinstance(thresholds, str) else json.dumps(thresholds))
    return folder


def test_a_flat_thresholds_file_is_accepted(package, drawing, tmp_path):
    flat = {name: 0.05 * (index + 1) for index, name in enumerate(FINDINGS)}
    folder = package_with(package, tmp_path / "flat", flat)
    findings = pipeline("chest-xray-findings", model=str(folder), trust_remote_code=True)(drawing)
    assert {each["label"]: each["threshold"] for each in findings} == flat
    assert all(each["probability"] is None for each in findings)  # uncalibrated: no probability is claimed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{half", "is not JSON"),
        ({"Mass": 0.5}, "lacks Atelectasis"),
        ({**dict.fromkeys(FINDINGS, 0.5), "Cold": 0.5}, "names Cold"),
        ({**dict.fromkeys(FINDINGS, 0.5), "Mass": 1.5}, "has 1.5 for Mass"),
        ({**dict.fromkeys(FINDINGS, 0.5), "Mass": float("nan")}, "has nan for Mass"),
        ({"operating_points": {"a": dict.fromkeys(FINDINGS, 0.5)}, "default": "b"}, "default operating point 'b'"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(package, tmp_path, content, said):
    folder = package_with(package, tmp_path / "bad", content)
    with pytest.raises(ValueError, match=said):
        pipeline("chest-xray-findings", model=str(folder), trust_remote_code=True)


@pytest.mark.parametrize(("digest", "warned"), [("0" * 64, True), (None, False)])
def test_thresholds_of_other_weights_are_warned_about(package, tmp_path, caplog, digest, warned):
    content = {
        "operating_points": {"a": dict.fromkeys(FINDINGS, 0.5)},
        "fitted_on": {"weights_digest": digest or weights_digest(load_file(package / "model.safetensors"))},
    }
    folder = package_with(package, tmp_path / "package", content)
    transformers.logging.enable_propagation()
    pipeline("chest-xray-findings", model=str(folder), trust_remote_code=True)
    assert ("fitted on other weights" in caplog.text) == warned


def test_calibration_is_platt_scaling_of_the_logit():
    points = {"a": dict.fromkeys(FINDINGS, 0.5)}
    thresholds = Thresholds({"operating_points": points, "calibration": {"Mass": {"slope": 2.0, "intercept": -3.0}}})
    assert thresholds.probability("Mass", 1.0) == pytest.approx(1 / (1 + np.exp(1.0)))
    assert thresholds.probability("Mass", -800.0) == 0.0
    assert thresholds.probability("Nodule", 1.0) is None


def test_a_score_at_its_threshold_is_a_call(pipe):
    """The sigmoid of 0 is exactly 0.5, the threshold of every finding."""
    for logit, called in ((0.0, True), (-1e-3, False)):
        findings = pipe.postprocess({"logits": torch.full((1, 14), logit)})
        assert all(finding["positive"] is called for finding in findings)


def test_notes_come_with_each_answer_alone_and_in_batches(pipe, drawing):
    lateral, age = "The view is lateral", "The age 414 is outside"
    inputs = [{"image": drawing, "view_position": "LL"}, drawing, {"image": drawing, "age": 414, "view_position": "PA"}]
    expected = [lateral, None, age]
    alone = [pipe(each) for each in inputs]
    for answers in (
        alone,
        pipe(inputs),
        pipe(inputs, batch_size=2),
        list(pipe((each for each in inputs), batch_size=3)),
    ):
        assert [len(answer) for answer in answers] == [14] * 3
        for answer, words in zip(answers, expected, strict=True):
            notes = [note for note in answer.notes if note != NOTE]  # a drawing need not look like a film
            assert [note[: len(words or "")] for note in notes] == ([] if words is None else [words])
            assert (NOTE in answer.notes) == (answer.fit < LEAST_FIT) and 0 <= answer.fit <= 1
    assert alone[0].to_dict() == {
        "fit": alone[0].fit, "any_finding": alone[0].any_finding, "findings": list(alone[0]), "notes": alone[0].notes,
    }  # fmt: skip
    assert alone[0] == pipe({"image": drawing, "view_position": None})  # to the network the view is unknown
