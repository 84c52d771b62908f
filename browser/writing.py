"""The page as files that any web server can hand out: scripts, the runtime, a model, and what is said of it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

from cxrfpn.publishing.contents import PublishError
from demo.examples import FOLDER as EXAMPLES
from demo.examples import load_examples, thumbnails
from demo.figures import Figures, describe_gate
from demo.points import describe_points
from demo.texts import CAUTION, HEADER, HEADERS_ONLY, NOTICE, model_name
from engine_cxrfpn import Engine
from gate_cxrfpn import LEAST_FIT, Gate
from package_cxrfpn import PROCESSOR
from pipeline_cxrfpn import ChestXrayFindingsPipeline
from preparation_cxrfpn import Preparation
from torch_engine_cxrfpn import TorchEngine

HERE = Path(__file__).parent
BUILT = HERE / "build"
STYLES = HERE.parent / "demo" / "page.css"
KINDS = "PNG, JPEG, WebP or DICOM"
# Nothing but the page's own files may be asked for, by whatever script.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; "
    "img-src 'self' data: blob:; style-src 'self'; base-uri 'none'; form-action 'none'"
)
# Pillow's filters that src/resize.js knows: bilinear, bicubic, box.
FILTERS = (2, 3, 4)
# The files of the network by their precision, in the order in which the page prefers them.
NETWORKS = {"fp16": "model.onnx", "int8": "model-int8.onnx"}
WORKER, CARD = "sw.js", "README.md"
SPACE_CARD = """---
title: {title}
sdk: static
pinned: false
license: apache-2.0
custom_headers:
  cross-origin-embedder-policy: require-corp
  cross-origin-opener-policy: same-origin
  cross-origin-resource-policy: cross-origin
---
{notice} Films are read in the browser of the visitor and are sent to nobody.
"""


def static_files(pipe: ChestXrayFindingsPipeline, networks: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the page's files as path -> content.

    Args:
        pipe: the model; its package is asked for figures, thresholds and how radiographs are prepared.
        networks: ONNX files of the model by precision, keys of NETWORKS.

    Raises:
        PublishError: the scripts are not built, or the package prepares radiographs in a way that they do not know.
    """
    require_scripts()
    settings = json.loads(pipe.image_processor.to_json_string())
    _check_settings(settings)
    engine = TorchEngine(pipe)
    figures = Figures(engine)
    examples = sorted(EXAMPLES.glob("*.png"))
    files = {path.relative_to(BUILT).as_posix(): path.read_bytes() for path in BUILT.rglob("*") if path.is_file()}
    files |= {f"examples/{path.name}": path.read_bytes() for path in examples}
    files |= {NETWORKS[precision]: content for precision, content in networks.items()}
    model = _model(engine, networks, figures) | {"settings": settings, "gate": gate_content()}
    files["model.json"] = json.dumps(model, separators=(",", ":")).encode()
    files["figures.html"] = f"{figures.page()}<p class='hint'>{describe_gate()}</p>".encode()
    files["index.html"] = _index(networks)
    files |= {"page.css": STYLES.read_bytes(), "static.css": (HERE / "static.css").read_bytes()}
    return files | {WORKER: _service_worker(files)}


def require_scripts() -> None:
    """Raise a PublishError where the page's scripts are not built."""
    if not (BUILT / "page.js").is_file():
        raise PublishError(f"{BUILT}: the page's scripts are not built; make static builds them, which needs Node")


def gate_content() -> dict[str, Any]:
    """Return what src/gate.js needs: the parts of the gate as lists, and the least fit of what looks like a chest."""
    parts = {name: part.tolist() for name, part in vars(Gate.load()).items()}
    return {**parts, "least_fit": LEAST_FIT}


def space_files(files: Mapping[str, bytes], repo: str) -> dict[str, bytes]:
    """Return the page's files and the card of a static Space that holds them."""
    card = SPACE_CARD.format(title=repo.split("/")[-1], notice=NOTICE)
    return {**files, CARD: card.encode()}


def write_folder(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files as a folder, in place of an earlier page that lies there.

    Raises:
        PublishError: the folder holds anything else, or cannot be written.
    """
    if folder.exists() and not (folder / WORKER).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise PublishError(f"{folder}: holds other files than a page's; give an empty folder, or one that is not there")
    if not folder.parent.is_dir():
        raise PublishError(f"{folder}: there is no folder {folder.parent}")
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as beside:
        new = Path(beside) / "new"
        for path, content in files.items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_bytes(content)
        if folder.exists():
            folder.rename(Path(beside) / "old")
        new.rename(folder)


def _check_settings(settings: Mapping[str, Any]) -> None:
    preparation = Preparation.from_settings(settings)
    if not preparation.do_resize or preparation.resample not in FILTERS:
        raise PublishError(
            f"{PROCESSOR}: do_resize {settings['do_resize']} with filter {settings['resample']} is not read in the "
            f"browser; it needs do_resize and one of {', '.join(map(str, FILTERS))}"
        )


def _model(engine: Engine, networks: Mapping[str, bytes], figures: Figures) -> dict[str, Any]:
    """Return what the page must know of the model, less how pixels are prepared and gated."""
    thresholds = engine.thresholds
    shown = [{**example, **small} for example, small in zip(load_examples(), thumbnails(), strict=True)]
    return {
        "name": model_name(engine.source),
        "notice": NOTICE,
        "findings": list(engine.findings),
        "thresholds": {
            "default": thresholds.default,
            "operating_points": thresholds.operating_points,
            "calibration": thresholds.calibration,
            "any_finding": thresholds.any_finding,
            "conformal": thresholds.conformal,
        },
        "points": describe_points(thresholds, figures),
        "measured": figures.measured_on(),
        "guarantee": thresholds.conformal.get("guarantee"),
        "examples": [{key: value for key, value in example.items() if key != "sha256"} for example in shown],
        "files": [
            {"name": NETWORKS[precision], "precision": precision, "size": len(networks[precision])}
            for precision in NETWORKS
            if precision in networks
        ],
    }


def _index(networks: Mapping[str, bytes]) -> bytes:
    links = [
        f'<a href="?precision={precision}">{precision}, {len(networks[precision]) / 1e6:.0f} MB</a>'
        for precision in NETWORKS
        if precision in networks
    ]
    precisions = f"The model as {' or '.join(links)}. " if len(links) > 1 else ""
    page = Template((HERE / "index.html").read_text(encoding="utf-8")).substitute(
        policy=POLICY, header=HEADER, kinds=KINDS, many=HEADERS_ONLY, caution=CAUTION, precisions=precisions
    )
    return page.encode()


def _service_worker(files: Mapping[str, bytes]) -> bytes:
    """Return the service worker, which keeps these files, of the networks only the one that the page prefers."""
    kept = [path for path in sorted(files) if path != NETWORKS["int8"] or NETWORKS["fp16"] not in files]
    digests = {path: hashlib.sha256(files[path]).hexdigest() for path in kept}
    version = hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]
    constants = {"VERSION": version, "POLICY": POLICY, "FILES": digests}
    lines = [f"const {key} = {json.dumps(value)};" for key, value in constants.items()]
    return "\n".join([*lines, (HERE / WORKER).read_text(encoding="utf-8")]).encode()
