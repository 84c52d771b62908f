"""A version is tagged only when all files agree on it and everything is committed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tools.release import ReleaseError, check_repository, check_version

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 1.2.0 - 2026-01-02\n\n- A thing.\n")
    (tmp_path / "CITATION.cff").write_text("version: 1.2.0\n")
    return tmp_path


def test_a_version_that_all_files_name_is_ready(tree):
    assert check_version(tree) == "1.2.0"


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("pyproject.toml", "1.2.0", "1.3.0", "its newest version is 1.2.0, not 1.3.0"),
        ("CITATION.cff", "1.2.0", "1.1.0", "names version 1.1.0, not 1.2.0"),
        ("CHANGELOG.md", " - 2026-01-02", "", "version 1.2.0 has no date"),
        ("CHANGELOG.md", "## Unreleased\n", "## Unreleased\n\n- Not in any version.\n", "entries under Unreleased"),
    ],
)
def test_a_version_that_files_disagree_on_is_refused(tree, file, old, new, reason):
    path = tree / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ReleaseError, match=reason):
        check_version(tree)


def test_uncommitted_changes_and_a_used_tag_are_refused(tree):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tree, check=True, capture_output=True)

    git("init")
    with pytest.raises(ReleaseError, match="not committed"):
        check_repository(tree, "1.2.0")
    git("add", ".")
    git("commit", "--message", "All of it")
    check_repository(tree, "1.2.0")
    git("tag", "v1.2.0")
    with pytest.raises(ReleaseError, match="the tag v1.2.0 exists"):
        check_repository(tree, "1.2.0")


def test_the_files_of_this_project_can_be_read(tmp_path):
    for name in ("pyproject.toml", "CHANGELOG.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    try:
        check_version(tmp_path)
    except ReleaseError as error:
        assert "Unreleased" in str(error)
