"""Check that a version is ready, and tag it: python tools/release.py (make release)

The version in pyproject.toml must be the newest of CHANGELOG.md and that of CITATION.cff, all changes must be
committed, and no tag may have it yet.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from errors_cxrfpn import CxrFpnError

ROOT = Path(__file__).resolve().parents[1]
HEADING = re.compile(r"^## (\S+)(?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


class ReleaseError(CxrFpnError):
    """Raised when a version is not ready; the message is one line that says what to do."""


def check_version(tree: Path) -> str:
    """Return the version of a source tree that is ready to be tagged.

    Raises:
        ReleaseError: the files name different versions, or the changelog has entries that belong to none.
    """
    version = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"]
    headings = HEADING.findall((tree / "CHANGELOG.md").read_text())
    newest, date = next((found for found in headings if found[0] != "Unreleased"), ("nothing", ""))
    if newest != version:
        raise ReleaseError(f"CHANGELOG.md: its newest version is {newest}, not {version} as in pyproject.toml")
    if not date:
        raise ReleaseError(f"CHANGELOG.md: version {version} has no date (## {version} - YYYY-MM-DD)")
    if headings[0][0] == "Unreleased" and _entries(tree / "CHANGELOG.md", "Unreleased"):
        raise ReleaseError(f"CHANGELOG.md: has entries under Unreleased; move them to version {version}")
    cited = str(yaml.safe_load((tree / "CITATION.cff").read_text())["version"])
    if cited != version:
        raise ReleaseError(f"CITATION.cff: names version {cited}, not {version} as in pyproject.toml")
    return version


def check_repository(tree: Path, version: str) -> None:
    """Raise a ReleaseError where changes are not committed, or the version has a tag already."""
    if _git(tree, "status", "--porcelain"):
        raise ReleaseError("some changes are not committed; commit them first")
    if _git(tree, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"the tag v{version} exists; raise the version in pyproject.toml")


def _entries(changelog: Path, heading: str) -> list[str]:
    section = re.split(rf"^## {heading}.*$", changelog.read_text(), flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
    return [line for line in section.splitlines() if line.startswith("- ")]


def _git(tree: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=tree, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def main() -> int:
    """Run the command."""
    try:
        version = check_version(ROOT)
        check_repository(ROOT, version)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    _git(ROOT, "tag", "--annotate", f"v{version}", "--message", f"Version {version}")
    print(f"tagged v{version}; git push --follow-tags publishes it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
