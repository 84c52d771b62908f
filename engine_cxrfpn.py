"""What runs a network, behind one interface: torch, onnxruntime or OpenVINO. --help waits for no import."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from thresholds_cxrfpn import PackageError

if TYPE_CHECKING:
    import numpy as np

    from answer_cxrfpn import Answer
    from radiograph_cxrfpn import Radiograph
    from thresholds_cxrfpn import Thresholds

AUTO = "auto"
# What an exported network is called in a folder of its package.
FILE_NAME = "model.onnx"
# The fastest first, with what each needs installed.
LIBRARIES = {"openvino": "openvino", "onnx": "onnxruntime", "torch": "torch"}
BACKENDS = (AUTO, *LIBRARIES)
# What an engine makes of a radiograph and its patient.
Inputs = TypeVar("Inputs")


class Engine(ABC, Generic[Inputs]):
    """A model that answers radiographs, with any library for its network.

    Attributes:
        backend: the name of the library, one of LIBRARIES.
        precision: "fp32", "bf16" or "int8".
        source: the folder, file or Hub id that the model came from.
        findings: their names, in the order of the logits.
        thresholds: the operating points and the calibration.
    """

    backend: str
    precision: str
    source: str
    findings: tuple[str, ...]
    thresholds: Thresholds

    @abstractmethod
    def read(self, image: object, name: str | None = None, max_pixels: int | None = None) -> Radiograph:
        """Read a radiograph with as many pixels as the model needs; see `Preparation.read`."""

    @abstractmethod
    def prepare(self, inputs: object) -> Inputs:
        """Make of a radiograph, or of a mapping of it and its patient, what `answer` takes. Safe in several threads.

        Raises:
            ValueError: the radiograph or the patient cannot be used, in one line.
        """

    @abstractmethod
    def answer(
        self,
        prepared: Sequence[Inputs],
        operating_point: str | None = None,
        *,
        maps: bool = False,
        embeddings: bool = False,
    ) -> list[Answer]:
        """Run the network once on a batch, and return an answer for each radiograph in it.

        Args:
            prepared: what `prepare` of this engine gave, at least one.
            operating_point: whose thresholds to call by; None for the model's default.
            maps: whether findings carry their map, [h,w] of 0..1.
            embeddings: whether answers carry the network's pooled features.
        """

    @abstractmethod
    def place_map(self, finding_map: np.ndarray, height: int, width: int) -> np.ndarray:
        """Lay a finding map over a radiograph of [height, width]; see `Preparation.place_map`."""

    @abstractmethod
    def pixels(self) -> dict[str, int | None]:
        """Return {"size", "prepared_size"}: the pixels that the model sees, on which thresholds depend."""

    @abstractmethod
    def weights_digest(self) -> str | None:
        """Return what the weights are known by, or None where nothing says so."""

    @abstractmethod
    def package_file(self, name: str) -> Path | None:
        """Return the path of a file that lies beside the model; None where there is none."""

    def __call__(
        self, inputs: object, *, operating_point: str | None = None, maps: bool = False
    ) -> Answer | list[Answer]:
        """Answer one input, or a list of them in one batch."""
        if isinstance(inputs, list):
            prepared = [self.prepare(each) for each in inputs]
            return self.answer(prepared, operating_point, maps=maps) if prepared else []
        return self.answer([self.prepare(inputs)], operating_point, maps=maps)[0]


def usable_cores() -> int:
    """Return how many threads this process should compute with: its cores, shared with processes beside it."""
    if (wanted := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        return max(1, int(wanted))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def load_engine(model: str, backend: str = AUTO, *, trust_remote_code: bool = False) -> Engine:
    """Load a model into an engine.

    Args:
        model: a folder, a Hub id (`org/name` or `org/name@revision`), or a file of `publish.py --onnx`.
        backend: one of BACKENDS. `auto` takes the first of LIBRARIES that is installed and has a file: torch reads
            every package, the others model.onnx in its folder.
        trust_remote_code: run the package's own modules, which need torch; see `load_pipeline`.

    Raises:
        PackageError: there is no such model, it is damaged, or the engine is not installed.
    """
    path = Path(model)
    is_file = path.suffix == ".onnx"
    if backend == AUTO:
        found = None if trust_remote_code else _fastest(path / FILE_NAME if path.is_dir() else path)
        if found is not None:
            return found
        backend = "onnx" if is_file else "torch"
    if backend != "torch":
        return _load_file(path, backend)
    if is_file:
        raise PackageError(f"{model}: torch reads no ONNX files; leave --backend torch out")
    from loading_cxrfpn import load_pipeline
    from torch_engine_cxrfpn import TorchEngine

    return TorchEngine(load_pipeline(model, trust_remote_code=trust_remote_code))


def _fastest(path: Path) -> Engine | None:
    """Return the fastest engine on an exported file, or None where there is no such file, or no engine for it."""
    if path.suffix != ".onnx" or not path.is_file():
        return None
    backend = next((name for name in ("openvino", "onnx") if find_spec(LIBRARIES[name]) is not None), None)
    if backend is None:
        return None
    engine = _open(path, backend)
    if (name := engine.outdated()) is not None:
        from pixels_cxrfpn import printable  # here, since --help needs no numpy

        print(printable(f"{path} is not used: {_outdated(name, path)}"), file=sys.stderr)
        return None
    return engine


def _load_file(path: Path, backend: str) -> Engine:
    is_folder = path.is_dir()
    path = path / FILE_NAME if is_folder else path
    if not path.is_file():
        raise PackageError(f"{path}: no such file; publish.py RUN --onnx {FILE_NAME} writes one")
    engine = _open(path, backend)
    if is_folder and (name := engine.outdated()) is not None:
        raise PackageError(f"{path}: {_outdated(name, path)}")
    return engine


def _open(path: Path, backend: str):
    from exported_cxrfpn import OnnxRuntimeEngine, OpenVinoEngine

    return {"onnx": OnnxRuntimeEngine, "openvino": OpenVinoEngine}[backend](path)


def _outdated(name: str, path: Path) -> str:
    return f"it was made from another {name}; write it again with publish.py {path.parent} --onnx {path}"
