"""Engines on a file of `publish.py --onnx`: onnxruntime and OpenVINO. Neither needs torch or transformers."""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from answer_cxrfpn import Answer, make_answer, split_input
from engine_cxrfpn import Engine, usable_cores
from gate_cxrfpn import film_fit, fit_notes
from package_cxrfpn import PROCESSOR, THRESHOLDS, WEIGHTS, file_sha256
from patient_cxrfpn import unique
from pixels_cxrfpn import MAX_PIXELS
from preparation_cxrfpn import Preparation
from radiograph_cxrfpn import Radiograph
from thresholds_cxrfpn import PackageError, Thresholds

if TYPE_CHECKING:
    from openvino import InferRequest

INPUTS: tuple[Literal["pixel_values", "patient"], ...] = ("pixel_values", "patient")
OUTPUTS = ("logits", "probabilities", "maps", "embedding")
# Keys of the metadata, beside those named as a package's files: what a package says is all in the file.
FINDINGS_KEY, DIGEST_KEY, MADE_FROM_KEY = "findings", "weights_digest", "made_from"
NEEDED_KEYS = (FINDINGS_KEY, THRESHOLDS, PROCESSOR)
# Precisions in which the file was measured, with the figures; an engine uses no other than fp32 and these.
BF16_KEY, INT8_KEY = "bf16", "int8"
# The files of a package that are in the exported file too, and must be the same where they lie beside it.
MADE_FROM = (WEIGHTS, THRESHOLDS, PROCESSOR)


@dataclass(frozen=True)
class Prepared:
    """A radiograph ready for the network: its crop [H,W] uint8, the encoded patient, notes and fit of the answer."""

    crop: np.ndarray
    patient: tuple[float, float, float]
    notes: tuple[str, ...]
    fit: float


class ExportedEngine(Engine[Prepared]):
    """A network in an ONNX file; what the library does is the subclass's.

    Args:
        path: a file of `publish.py --onnx`.

    Raises:
        PackageError: the library is not installed, cannot load the file, or the file is another kind of file.
    """

    def __init__(self, path: Path):
        self.source, self._folder = str(path), path.parent
        self.metadata = self._load(path)
        if missing := [key for key in NEEDED_KEYS if key not in self.metadata]:
            raise PackageError(
                f"{path}: its metadata lack {', '.join(missing)}, which the files of publish.py RUN --onnx have"
            )
        self.findings = tuple(json.loads(self.metadata[FINDINGS_KEY]))
        self.thresholds = Thresholds(json.loads(self.metadata[THRESHOLDS]), self.findings)
        self.preparation = Preparation.from_settings(json.loads(self.metadata[PROCESSOR]))

    @abstractmethod
    def _load(self, path: Path) -> dict[str, str]:
        """Load the file, and return its metadata."""

    @abstractmethod
    def run(
        self, pixel_values: np.ndarray, patient: np.ndarray, wanted: tuple[str, ...] = ("logits",)
    ) -> dict[str, np.ndarray]:
        """Run the network, as far as what is wanted needs it.

        Args:
            pixel_values: [B,3,H,W] float32, normalised.
            patient: [B,3] float32, NaN for unknown.
            wanted: names out of OUTPUTS.

        Returns:
            each of them, float32: `logits` [B,F], `probabilities` [B,F] of 0..1 (NaN where a finding is not
            calibrated), `maps` [B,F,h,w] of 0..1, `embedding` [B,E].
        """

    def read(self, image: object, name: str | None = None, max_pixels: int | None = None) -> Radiograph:
        """See `Engine.read`."""
        return self.preparation.read(image, name, max_pixels or MAX_PIXELS)

    def prepare(self, inputs: object) -> Prepared:
        """See `Engine.prepare`."""
        image, patient = split_input(inputs)
        radiograph = self.read(image)
        patient = patient.or_else(radiograph.patient)
        fit = film_fit(radiograph.pixels)
        notes = unique((*radiograph.notes, *patient.notes, *fit_notes(fit)))
        return Prepared(self.preparation.crop(radiograph.pixels), patient.encode(), notes, fit)

    def answer(
        self,
        prepared: Sequence[Prepared],
        operating_point: str | None = None,
        *,
        maps: bool = False,
        embeddings: bool = False,
    ) -> list[Answer]:
        """See `Engine.answer`."""
        pixel_values = self.preparation.normalise([each.crop for each in prepared])
        patient = np.array([each.patient for each in prepared], np.float32)
        wanted = ("logits", *(("maps",) if maps else ()), *(("embedding",) if embeddings else ()))
        outputs = self.run(pixel_values, patient, wanted)
        if not np.isfinite(outputs["logits"]).all():
            raise PackageError(f"{self.source}: gives scores that are no numbers; write it again with publish.py")
        return [
            make_answer(
                outputs["logits"][index].tolist(),
                self.findings,
                self.thresholds,
                operating_point,
                each.notes,
                outputs["maps"][index] if maps else None,
                outputs["embedding"][index] if embeddings else None,
                each.fit,
            )
            for index, each in enumerate(prepared)
        ]

    def place_map(self, finding_map: np.ndarray, height: int, width: int) -> np.ndarray:
        """See `Engine.place_map`."""
        return self.preparation.place_map(finding_map, height, width)

    def pixels(self) -> dict[str, int | None]:
        """See `Engine.pixels`."""
        return {"size": self.preparation.height, "prepared_size": self.preparation.prepared_size}

    def weights_digest(self) -> str | None:
        """See `Engine.weights_digest`."""
        return self.metadata.get(DIGEST_KEY)

    def package_file(self, name: str) -> Path | None:
        """See `Engine.package_file`."""
        path = self._folder / name
        return path if path.is_file() else None

    def outdated(self) -> str | None:
        """Return the first file of the package beside this one that is another than it was made from, or None."""
        made_from = json.loads(self.metadata.get(MADE_FROM_KEY, "{}"))
        there = {name: path for name in MADE_FROM if (path := self.package_file(name)) is not None}
        return next((name for name, path in there.items() if made_from.get(name) != file_sha256(path)), None)


class OnnxRuntimeEngine(ExportedEngine):
    """onnxruntime on the CPU."""

    backend = "onnx"

    def _load(self, path: Path) -> dict[str, str]:
        try:
            import onnxruntime
        except ImportError:
            raise PackageError(f"ONNX files need onnxruntime; {extra('onnx')}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception of its own for each way in which a file can be wrong
            raise PackageError(f"{path}: onnxruntime cannot load it ({_first_line(error)})") from None
        # Otherwise it would compute the maps for those who want none.
        self._options = onnxruntime.RunOptions()
        self._options.only_execute_path_to_fetches = True
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.precision = "int8" if INT8_KEY in metadata else "fp32"
        return metadata

    def run(
        self, pixel_values: np.ndarray, patient: np.ndarray, wanted: tuple[str, ...] = ("logits",)
    ) -> dict[str, np.ndarray]:
        """See `ExportedEngine.run`."""
        inputs = dict(zip(INPUTS, (pixel_values, patient), strict=True))
        return dict(zip(wanted, self._session.run(list(wanted), inputs, self._options), strict=True))


class OpenVinoEngine(ExportedEngine):
    """OpenVINO on the CPU: in bf16 where the file was measured in it and the CPU multiplies it.

    Args:
        path: a file of `publish.py --onnx`.
        precision: "fp32" or "bf16", in place of the one that the file and the CPU suggest.
    """

    backend = "openvino"

    def __init__(self, path: Path, precision: str | None = None):
        self._asked_precision = precision
        self._compiled: dict[tuple[str, ...], InferRequest] = {}
        self._lock = threading.Lock()
        super().__init__(path)

    def _load(self, path: Path) -> dict[str, str]:
        try:
            import openvino
        except ImportError:
            raise PackageError(f"--backend openvino needs openvino; {extra('openvino')}") from None
        self._core = openvino.Core()
        try:
            self._model = self._core.read_model(path)
        except Exception as error:  # RuntimeError, of many kinds
            raise PackageError(f"{path}: OpenVINO cannot load it ({_first_line(error)})") from None
        info = "framework"  # where OpenVINO keeps the metadata of an ONNX file
        metadata: dict[str, str] = self._model.get_rt_info(info).value if self._model.has_rt_info(info) else {}
        suggested = "bf16" if BF16_KEY in metadata and self.multiplies_bf16() else "fp32"
        self.precision = "int8" if INT8_KEY in metadata else self._asked_precision or suggested
        return metadata

    def multiplies_bf16(self) -> bool:
        """Return whether this CPU multiplies bf16 in hardware."""
        return "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def run(
        self, pixel_values: np.ndarray, patient: np.ndarray, wanted: tuple[str, ...] = ("logits",)
    ) -> dict[str, np.ndarray]:
        """See `ExportedEngine.run`."""
        with self._lock:  # a request holds its own inputs and outputs
            outputs = self._request(wanted).infer(dict(zip(INPUTS, (pixel_values, patient), strict=True)))
            return {name: np.array(outputs[name]) for name in wanted}

    def _request(self, wanted: tuple[str, ...]) -> InferRequest:
        """Return the network cut down to the wanted outputs, compiled on first use."""
        if wanted not in self._compiled:
            model = self._model.clone()
            for result in model.get_results():
                if result.input_value(0).get_names().isdisjoint(wanted):
                    model.remove_result(result)
            settings = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": usable_cores(),
                "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            }
            self._compiled[wanted] = self._core.compile_model(model, "CPU", settings).create_infer_request()
        return self._compiled[wanted]


def extra(name: str) -> str:
    """Return how to install one of this project's extras."""
    return f"install this project's extra: pip install 'cxr-densenet-fpn[{name}]'"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
