"""THE inference path: radiograph and patient -> findings with scores, probabilities, thresholds and calls."""

import json
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from transformers import Pipeline
from transformers.utils import logging

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .answer_cxrfpn import Answer, make_answer, split_input
    from .gate_cxrfpn import film_fit, fit_notes
    from .package_cxrfpn import THRESHOLDS, WEIGHTS, weights_digest
    from .patient_cxrfpn import unique
    from .thresholds_cxrfpn import PackageError, Thresholds, ThresholdsError
except ImportError:
    from answer_cxrfpn import Answer, make_answer, split_input
    from gate_cxrfpn import film_fit, fit_notes
    from package_cxrfpn import THRESHOLDS, WEIGHTS, weights_digest
    from patient_cxrfpn import unique
    from thresholds_cxrfpn import PackageError, Thresholds, ThresholdsError

logger = logging.get_logger(__name__)


class TensorInputs(TypedDict):
    """What the network takes of one radiograph, pixel_values [1,3,H,W] and patient [1,3], and what is noted of it."""

    pixel_values: torch.Tensor
    patient: torch.Tensor
    notes: tuple[str, ...]
    fit: float


class ChestXrayFindingsPipeline(Pipeline):
    """`pipeline("chest-xray-findings", model=..., trust_remote_code=True)`.

    Takes a radiograph (all that `read_radiograph` reads; a string is a path, never a URL) or a mapping `{"image": ...,
    "age": years, "sex": "M" or "F", "view_position": "PA" or "AP"}`, or a list or generator of either; `Patient` says
    in which forms these may be written. What a mapping leaves out is taken from a DICOM header, and is unknown
    otherwise.

    Gives, for each radiograph, an `Answer`: a list of a mapping for each finding, sorted by score. Each mapping has
    `label`; `score` (the sigmoid, which thresholds apply to; no probability); `probability` (calibrated, or None);
    `threshold`; `positive`; `call` ("present", "absent" or "uncertain" at the guarantee of thresholds.json, or None);
    and with `maps=True` `map`, an array [h,w] of 0..1 that shows where the finding was seen. The answer's attributes:
    `notes`, sentences on why they may not hold (a lateral view, an unclear polarity), normally none; `fit`, how well
    the picture fits what the network was trained on, 0..1 (below 0.5 there is a note); and `any_finding`, a mapping
    like the others for whether anything is there at all (None if thresholds.json was fitted without it).

    A mapping may be a row of a data set or of a pandas table: its other columns are not read, and the first of them is
    warned about. An image may also be `{"bytes": ..., "path": ...}`, as `datasets` gives one that is not decoded.

    Call parameters: `operating_point` (a name in thresholds.json), `maps`, `embedding=True` (the answer's attribute
    `embedding` then holds the pooled features, [levels * pyramid_channels]), and transformers' `batch_size`.
    """

    _load_processor = False
    _load_image_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)
        self.model.eval().to(memory_format=torch.channels_last)
        self.thresholds = self._read_thresholds()
        self._try_out()

    def _sanitize_parameters(
        self,
        operating_point: str | None = None,
        maps: bool | None = None,
        embedding: bool | None = None,
        **unknown: object,
    ) -> tuple[dict, dict, dict]:
        if unknown:
            raise TypeError(
                f"the pipeline takes no parameter {', '.join(unknown)}; it takes operating_point, maps and embedding"
            )
        asked = {"maps": maps, "embedding": embedding}
        forward = {name: value for name, value in asked.items() if value is not None}
        return {}, forward, {} if operating_point is None else {"operating_point": operating_point}

    def preprocess(self, inputs: object) -> TensorInputs:
        """Read a radiograph, or a mapping of it and its patient: pixel_values [1,3,H,W], patient [1,3], notes, fit."""
        image, patient = split_input(inputs)
        radiograph = self.image_processor.read(image)
        patient, fit = patient.or_else(radiograph.patient), film_fit(radiograph.pixels)
        return {
            "pixel_values": self.image_processor(radiograph)["pixel_values"],
            "patient": torch.tensor([patient.encode()], dtype=torch.float32),
            "notes": unique((*radiograph.notes, *patient.notes, *fit_notes(fit))),
            "fit": fit,
        }

    def _forward(self, model_inputs: dict[str, Any], maps: bool = False, embedding: bool = False) -> dict[str, Any]:
        answer = {"notes": model_inputs.get("notes", ()), "fit": model_inputs.get("fit")}
        pixel_values = model_inputs["pixel_values"].to(self.model.dtype).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16(pixel_values.device, self.model.dtype)):
            if embedding or not maps:
                output = self.model(pixel_values, model_inputs["patient"])
                answer["logits"] = output.logits.float()
            if maps:
                logits, finding_maps = self.model.forward_with_maps(pixel_values, model_inputs["patient"])
                answer |= {"logits": logits.float(), "maps": finding_maps.float()}
        if embedding:
            if output.pooler_output is None:
                raise ValueError("an ONNX file gives no embedding; use the package itself")
            answer["embedding"] = output.pooler_output.float()
        return answer

    def postprocess(self, model_outputs: dict[str, Any], operating_point: str | None = None) -> Answer:
        """Logits [1,F] and notes of one radiograph -> its findings, the highest score first."""
        maps, embedding = model_outputs.get("maps"), model_outputs.get("embedding")
        return make_answer(
            model_outputs["logits"][0].tolist(),
            self.model.findings,
            self.thresholds,
            operating_point,
            model_outputs.get("notes", ()),
            None if maps is None else maps[0].numpy(),
            None if embedding is None else embedding[0].cpu().numpy(),
            model_outputs.get("fit"),
        )

    def weights_digest(self) -> str | None:
        """Return what the weights in memory are known by; see `weights_digest` of package_cxrfpn."""
        return weights_digest(self.model.state_dict())

    def package_file(self, name: str) -> Path | None:
        """Return a file that lies beside the weights, in a folder or in the revision of the Hub that was loaded."""
        package = getattr(self.model, "package", None)
        return None if package is None else package.file(name)

    def _read_thresholds(self) -> Thresholds:
        """Read the thresholds that came with the weights.

        Raises:
            ThresholdsError: they cannot be used.
        """
        findings, content = self.model.findings, self.model.beside.get(THRESHOLDS)
        if content is None:
            logger.warning("the package has no thresholds.json: 0.5 is used for every finding")
            return Thresholds(dict.fromkeys(findings, 0.5), findings)
        try:
            thresholds = Thresholds(json.loads(content), findings)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise ThresholdsError(f"{THRESHOLDS}: is not JSON ({error}); write it again with score.py") from None
        fitted_on = thresholds.fitted_on.get("weights_digest")
        if fitted_on and self.weights_digest() not in (fitted_on, None):
            logger.warning(
                "thresholds.json was fitted on other weights than these: its thresholds and probabilities may be "
                "wrong; fit them again with score.py or train.py"
            )
        return thresholds

    def _try_out(self) -> None:
        """Refuse a package that would answer with noise, or not at all.

        Raises:
            PackageError: its weights are not all there, or a grey ramp gets no finite scores.
        """
        if missing := self.model.missing_weights:  # transformers has filled in random numbers
            raise PackageError(
                f"{WEIGHTS}: lacks {len(missing)} of the network's weights ({missing[0]}, ...): "
                "it is cut, or of another config.json; copy the whole package again"
            )
        side = self.image_processor.size.height
        expected = getattr(getattr(self.model, "config", None), "image_size", side)  # an ONNX file has one size only
        if side != expected:
            logger.warning(
                f"preprocessor_config.json makes images of {side} pixels, but config.json is for {expected}: "
                "findings may be wrong; copy both files from one package"
            )
        ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
        try:
            logits = self.forward(self.preprocess(ramp))["logits"]
        except Exception as error:  # sizes that do not fit, a mean of words: anything that a changed number may cause
            reason = " ".join(str(error).split())[:200]
            raise PackageError(f"the package fails on a test image ({reason}); copy the whole package again") from None
        if not logits.isfinite().all():
            raise PackageError(
                "the package gives scores that are no numbers: model.safetensors or preprocessor_config.json is "
                "damaged; copy the whole package again"
            )


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; elsewhere it is many times slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def uses_bf16(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether convolutions are computed in bf16; weights that are not in single precision are used as they are."""
    return dtype == torch.float32 and device.type == "cpu" and cpu_multiplies_bf16()
