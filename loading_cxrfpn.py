"""THE loader of packages: our code on a package's weights. It reads safetensors and JSON, and nothing else.

A package brings its own modules for those who have nothing but transformers. Here they stay untouched: the owner of a
repository on the Hub could put anything into them. They run on request only.
"""

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from transformers import pipeline
from transformers.utils import logging

from configuration_cxrfpn import CxrFpnConfig
from image_processing_cxrfpn import CxrFpnImageProcessor
from modeling_cxrfpn import CxrFpnForImageClassification
from package_cxrfpn import CONFIG, PROCESSOR, WEIGHTS, Package
from pipeline_cxrfpn import ChestXrayFindingsPipeline
from thresholds_cxrfpn import PackageError

TASK = "chest-xray-findings"
COMMIT = re.compile(r"[0-9a-f]{40}")
# What the JSON files of a package of ours say that they are.
IDENTITIES = {
    CONFIG: ("model_type", CxrFpnConfig.model_type),
    PROCESSOR: ("image_processor_type", CxrFpnImageProcessor.__name__),
}
# Files and keys by which transformers would take weights from elsewhere, or in another format.
ADAPTER, QUANTISED = "adapter_config.json", "quantization_config"


def load_pipeline(model: str, *, trust_remote_code: bool = False) -> ChestXrayFindingsPipeline:
    """Load the pipeline of a package.

    Args:
        model: a folder, or a Hub id, `org/name` or `org/name@revision`.
        trust_remote_code: run the package's own modules instead of ours; of a Hub id at a commit only.

    Raises:
        PackageError: there is no such package, it is not whole, or it is one that is not read; in one line.
    """
    logging.disable_progress_bar()
    package = _locate(model, (CONFIG, PROCESSOR, WEIGHTS), trust_remote_code)
    with _explained(model):
        if trust_remote_code:
            return pipeline(
                TASK,
                model=package.source,
                revision=package.revision,
                trust_remote_code=True,
                model_kwargs={"use_safetensors": True},
            )
        processor = CxrFpnImageProcessor.from_pretrained(package.source, revision=package.revision)
        return ChestXrayFindingsPipeline(model=_network(package), image_processor=processor, task=TASK)


def load_network(model: str) -> CxrFpnForImageClassification:
    """Load the network of a package alone, in eval mode; arguments and errors as of `load_pipeline`."""
    logging.disable_progress_bar()
    package = _locate(model, (CONFIG, WEIGHTS))
    with _explained(model):
        return _network(package)


def _network(package: Package) -> CxrFpnForImageClassification:
    return CxrFpnForImageClassification.from_pretrained(package.source, revision=package.revision, use_safetensors=True)


def _locate(model: str, needed: tuple[str, ...], trust_remote_code: bool = False) -> Package:
    """Find a package and look at its JSON files, before anything of it is loaded."""
    # A folder may hold an @; what is no folder is a Hub id, and the revision it is pinned to.
    is_folder = Path(model).is_dir()
    name, _, revision = (model, "", "") if is_folder else model.partition("@")
    # A mistyped folder is no Hub id either.
    if not is_folder and "/" in model and Path(model).parent.is_dir():
        raise PackageError(f"{model}: there is no such folder; give that of a package, or org/name of one on the Hub")
    if missing := [file for file in needed if is_folder and not (Path(model) / file).is_file()]:
        raise PackageError(f"{model}: the package lacks {', '.join(missing)}; copy the whole package again")
    if trust_remote_code and not is_folder and not COMMIT.fullmatch(revision):
        raise PackageError(
            f"{model}: to run a package's own modules, name the commit that you have read: {name}@<40 digits>"
        )
    with _explained(model):
        package = Package.locate(name, revision or None)
        if package.file(ADAPTER) is not None:
            raise PackageError(f"{model}: is an adapter ({ADAPTER}); merge it into its model and save that")
        files = package.read(CONFIG, PROCESSOR)
        for file, content in files.items():
            _check_settings(model, file, _read_json(model, file, content))
    return package


def _read_json(model: str, file: str, content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{model}: {file} is not JSON ({error}); copy the whole package again") from None


def _check_settings(model: str, file: str, settings: object) -> None:
    """Refuse JSON that names code or weights elsewhere."""
    if not isinstance(settings, dict):
        raise PackageError(f"{model}: {file} is no mapping; copy the whole package again")
    key, ours = IDENTITIES[file]
    if settings.get(key) != ours:
        raise PackageError(
            f"{model}: {file} is of another kind of model ({key} {str(settings.get(key))[:80]!r}, not {ours!r}); "
            "copy the whole package again"
        )
    if foreign := next((name for name in _module_names(settings) if "--" in name), None):
        raise PackageError(
            f"{model}: {file} names code of another repository ({foreign[:80]!r}); use a package that brings its own"
        )
    if QUANTISED in settings:
        raise PackageError(f"{model}: {file} says that its weights are quantised; use the package in floating point")


def _module_names(settings: Mapping[str, object]) -> Iterator[str]:
    """Every text under the keys by which transformers finds modules."""
    waiting = [settings.get(key) for key in ("auto_map", "custom_pipelines")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Turn what transformers, safetensors, torch or the Hub's client raise into a PackageError of one line."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        if isinstance(error, PackageError):
            raise PackageError(reason if reason.startswith(f"{model}: ") else f"{model}: {reason}") from None
        advice = "check the name and the revision, and the network"
        if Path(model).is_dir():
            advice = "copy the whole package again"
        # transformers hands on what it met as text.
        if any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
            advice = "make room on the disk"
        raise PackageError(f"{model}: the model cannot be loaded, {advice} ({reason})") from None
