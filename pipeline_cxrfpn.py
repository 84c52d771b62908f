"""THE inference path: radiograph and patient -> 14 findings with scores, probabilities, thresholds and calls."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Pipeline, PreTrainedModel, pipeline
from transformers.utils import cached_file, logging

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .answer_cxrfpn import Answer
    from .configuration_cxrfpn import FINDINGS
    from .patient_cxrfpn import PATIENT_KEYS, Patient, unique
    from .thresholds_cxrfpn import PackageError, Thresholds, ThresholdsError, sigmoid
except ImportError:
    from answer_cxrfpn import Answer
    from configuration_cxrfpn import FINDINGS
    from patient_cxrfpn import PATIENT_KEYS, Patient, unique
    from thresholds_cxrfpn import PackageError, Thresholds, ThresholdsError, sigmoid

logger = logging.get_logger(__name__)

WEIGHTS = "model.safetensors"
PACKAGE_FILES = ("config.json", "preprocessor_config.json", WEIGHTS)


def load_pipeline(model: str) -> "ChestXrayFindingsPipeline":
    """The pipeline of a package: of a folder, or of a Hub id, org/name or org/name@revision.

    Weights are read from model.safetensors only: the other kinds are pickles, which run code.

    Raises:
        PackageError: there is no such package, or it is not whole.
    """
    # A folder may hold an @; what is no folder is a Hub id, and the revision it is pinned to.
    is_folder = Path(model).is_dir()
    name, _, revision = (model, "", "") if is_folder else model.partition("@")
    # A mistyped folder is no Hub id either: whoever owns that name there would run code here.
    if not is_folder and "/" in model and Path(model).parent.is_dir():
        raise PackageError(f"{model}: there is no such folder; give that of a package, or org/name of one on the Hub")
    if missing := [file for file in PACKAGE_FILES if is_folder and not (Path(model) / file).is_file()]:
        raise PackageError(f"{model}: the package lacks {', '.join(missing)}; copy the whole package again")
    try:
        return pipeline(
            "chest-xray-findings",
            model=name,
            revision=revision or None,
            trust_remote_code=True,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # of transformers, safetensors, torch, the Hub's client, or the package's own modules
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        # Ours say what to do; their class may be that of the copy of this module that the package brought along.
        if any(kind.__name__ == PackageError.__name__ for kind in type(error).__mro__):
            raise PackageError(f"{model}: {reason}") from None
        advice = "copy the whole package again" if is_folder else "check the name and the revision, and the network"
        if _is_full(error):
            advice = "make room on the disk"
        raise PackageError(f"{model}: the model cannot be loaded, {advice} ({reason})") from None


def _is_full(error: Exception) -> bool:
    """Whether an error tells of a full disk; transformers hands on what it met as text."""
    return any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def file_sha256(path: Path) -> str:
    """What a file is known by, whatever it is called: thresholds.json names its weights so."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ChestXrayFindingsPipeline(Pipeline):
    """`pipeline("chest-xray-findings", model=..., trust_remote_code=True)`.

    Takes a radiograph (whatever `read_radiograph` reads; a string is a path, never a URL) or a mapping `{"image": ...,
    "age": years, "sex": "M" or "F", "view_position": "PA" or "AP"}`, or a list or generator of either; `Patient` says
    in which forms these may be written. What a mapping leaves out is taken from a DICOM header, and is unknown
    otherwise.

    Gives, for each radiograph, an `Answer`: a list of 14 mappings sorted by score, whose attribute `notes` holds
    sentences on why they may not hold (a lateral view, an unclear polarity), normally none. Each mapping has `label`;
    `score` (the sigmoid, which thresholds apply to; no probability); `probability` (calibrated, or None); `threshold`;
    `positive`; and with `maps=True` `map`, an array [h,w] of 0..1 that shows where the finding was seen.

    Call parameters: `operating_point` (a name in thresholds.json), `maps`, and transformers' `batch_size`.
    """

    _load_processor = False
    _load_image_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.model.eval().to(memory_format=torch.channels_last)
        self.thresholds = self._read_thresholds()
        self._try_out()

    def _sanitize_parameters(
        self, operating_point: str | None = None, maps: bool | None = None, **unknown: Any
    ) -> tuple[dict, dict, dict]:
        if unknown:
            raise TypeError(f"the pipeline takes no parameter {', '.join(unknown)}; it takes operating_point and maps")
        forward = {} if maps is None else {"maps": maps}
        return {}, forward, {} if operating_point is None else {"operating_point": operating_point}

    def preprocess(self, inputs: Any) -> dict[str, Any]:
        """A radiograph, or a mapping of it and its patient -> pixel_values [1,3,H,W], patient [1,3] and notes."""
        known = dict(inputs) if isinstance(inputs, Mapping) else {"image": inputs}
        if "image" not in known:
            raise ValueError(f"an input needs the key 'image'; it has {', '.join(map(str, known)) or 'none'}")
        if unknown := set(known) - {"image", *PATIENT_KEYS}:
            raise ValueError(
                f"an input takes no key {', '.join(map(str, unknown))}; it takes image, {', '.join(PATIENT_KEYS)}"
            )
        radiograph = self.image_processor.read(known["image"])
        patient = Patient(**{key: known.get(key) for key in PATIENT_KEYS}).or_else(radiograph.patient)
        return {
            "pixel_values": self.image_processor(radiograph)["pixel_values"],
            "patient": torch.tensor([patient.encode()], dtype=torch.float32),
            "notes": unique((*radiograph.notes, *patient.notes)),
        }

    def _forward(self, model_inputs: dict[str, Any], maps: bool = False) -> dict[str, Any]:
        notes = {"notes": model_inputs.get("notes", ())}
        pixel_values = model_inputs["pixel_values"].to(self.model.dtype).contiguous(memory_format=torch.channels_last)
        with _fastest_precision(pixel_values.device):
            if not maps:
                return {"logits": self.model(pixel_values, model_inputs["patient"]).logits.float(), **notes}
            logits, finding_maps = self.model.forward_with_maps(pixel_values, model_inputs["patient"])
            return {"logits": logits.float(), "maps": finding_maps.float(), **notes}

    def postprocess(self, model_outputs: dict[str, Any], operating_point: str | None = None) -> Answer:
        """Logits [1,14] and notes of one radiograph -> its findings, the highest score first."""
        thresholds = self.thresholds.at(operating_point)
        findings = []
        for index, (label, logit) in enumerate(zip(FINDINGS, model_outputs["logits"][0].tolist(), strict=True)):
            score = sigmoid(logit)
            finding = {
                "label": label,
                "score": score,
                "probability": self.thresholds.probability(label, logit),
                "threshold": thresholds[label],
                "positive": score >= thresholds[label],
            }
            if "maps" in model_outputs:
                finding["map"] = model_outputs["maps"][0, index].numpy()
            findings.append(finding)
        findings.sort(key=lambda finding: finding["score"], reverse=True)
        return Answer(findings, model_outputs.get("notes", ()))

    def _read_thresholds(self) -> Thresholds:
        path = self.package_file("thresholds.json")
        if path is None:
            logger.warning("the package has no thresholds.json: 0.5 is used for every finding")
            return Thresholds(dict.fromkeys(FINDINGS, 0.5))
        try:
            content = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise ThresholdsError(f"{path}: is not JSON ({error}); write it again with score.py") from None
        thresholds = Thresholds(content)
        weights, expected = self.package_file(WEIGHTS), thresholds.fitted_on.get("weights_sha256")
        if expected and weights and file_sha256(weights) != expected:
            logger.warning(
                "thresholds.json was fitted on other weights than model.safetensors: "
                "its thresholds and probabilities may be wrong; fit them again with score.py or train.py"
            )
        return thresholds

    def _try_out(self) -> None:
        """Refuse a package that would answer with noise, or not at all.

        Raises:
            PackageError: its weights are not all there, or a grey ramp gets no finite scores.
        """
        weights = self.package_file(WEIGHTS) if isinstance(self.model, PreTrainedModel) else None
        if weights is not None:
            with weights.open("rb") as file:  # safetensors: the length of a header, and the header, in JSON
                stored = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            # transformers would fill in random numbers.
            if missing := sorted(set(self.model.state_dict()) - set(stored)):
                raise PackageError(
                    f"{weights}: lacks {len(missing)} of the network's weights ({missing[0]}, ...): "
                    "it is cut, or of another config.json; copy the whole package again"
                )
            side, expected = self.image_processor.size.height, self.model.config.image_size
            if side != expected:
                logger.warning(
                    f"preprocessor_config.json makes images of {side} pixels, but config.json is for {expected}: "
                    "findings may be wrong; copy both files from one package"
                )
        ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
        try:
            logits = self.forward(self.preprocess(ramp))["logits"]
        except Exception as error:  # sizes that do not fit, a mean of words: whatever a changed number leads to
            reason = " ".join(str(error).split())[:200]
            raise PackageError(f"the package fails on a test image ({reason}); copy the whole package again") from None
        if not logits.isfinite().all():
            raise PackageError(
                "the package gives scores that are no numbers: model.safetensors or preprocessor_config.json is "
                "damaged; copy the whole package again"
            )

    def package_file(self, name: str) -> Path | None:
        """A file that lies beside the weights, in a folder or in the very revision of the Hub that was loaded."""
        source = self.model.name_or_path
        if not source:
            return None
        # transformers names the module it loads remote code as after the revision it came from.
        revision = next(iter(re.findall(r"\.([0-9a-f]{40})\.", type(self).__module__)), None)
        found = cached_file(
            source,
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
        )
        return None if found is None else Path(found)


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; elsewhere it is many times slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _fastest_precision(device: torch.device) -> AbstractContextManager:
    if device.type == "cpu" and cpu_multiplies_bf16():
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()
