"""The lock file fits pyproject.toml: CI installs from it what a user may install."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LOCKED_EXTRAS = {"test", "mcp", "demo", "dicom", "train", "onnx", "openvino", "reports", "audit", "docs"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_each_dependency_is_locked_at_versions_within_its_range():
    locked: dict[str, list[str]] = {}
    for line in LOCK:
        requirement = Requirement(line)
        (version,) = requirement.specifier
        locked.setdefault(normalised(requirement.name), []).append(version.version)
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(each for extra in LOCKED_EXTRAS for each in extras[extra])]
    for requirement in map(Requirement, wanted):
        if requirement.name != PROJECT["name"]:
            versions = locked.get(normalised(requirement.name), [])
            assert versions and all(map(requirement.specifier.contains, versions)), f"{requirement}: run make lock"


def test_the_lock_names_no_registry_and_no_folder():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "--" not in text and "file:" not in text
