"""A run published: the model, and a Space that shows exactly that model."""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, get_token

from cxrfpn.publishing.contents import PublishError, model_files, space_files
from cxrfpn.publishing.repository import Update, compare, one_line

# app.py reads it: a Hub id at the revision that it is pinned to, org/name@commit.
VARIABLE = "CXR_MODEL"


@dataclass(frozen=True)
class Release:
    """What has to be done to both repositories. `pin` is what the Space's CXR_MODEL says now."""

    api: HfApi
    model: Update
    space: Update
    pin: str | None

    def listing(self) -> str:
        """Describe what goes where, how large it is, and what has changed."""
        commit = "its next commit" if self.model.pending else self.model.head
        pin = f"{self.model.repo}@{commit}"
        lines = [self.model.listing(), self.space.listing(), f"  {VARIABLE} = {pin}{self._stays(pin)}"]
        modules = [name for name in self.model.files if name.endswith("_cxrfpn.py")]
        if outdated := [name for name in modules if self.model.files[name] != self.space.files.get(name)]:
            lines.append(
                f"note: the run's {', '.join(outdated)} differ from this project's, which the demo is made for; copy "
                "them into the run and score it again with score.py"
            )
        return "\n".join(lines)

    def upload(self, name: str) -> str:
        """Bring the model up to date, then the Space's variable, then the Space; say what was done.

        The variable comes before the files: a Space restarts on either, and must never start without its model.

        Raises:
            PublishError: the Hub refuses, or cannot be reached; what was committed before stays.
        """
        self.model.create(self.api)
        commit = self.model.push(self.api, f"Publish {name}")
        pin = f"{self.model.repo}@{commit}"
        self.space.create(self.api)
        if pin != self.pin:
            with one_line(self.space.repo):
                self.api.add_space_variable(self.space.repo, VARIABLE, pin)
        shown = self.space.push(self.api, f"Show {pin}")
        lines = [_told(self.model, commit), _told(self.space, shown), f"{VARIABLE} = {pin}{self._stays(pin)}"]
        if self.model.private:
            lines.append(f"{self.model.repo} is private: give the Space a secret HF_TOKEN that may read it")
        return "\n".join(lines)

    def _stays(self, pin: str) -> str:
        return ", as before" if pin == self.pin else ""


def prepare_release(run: Path, model_repo: str, space_repo: str, private: bool, tree: Path) -> Release:
    """Check a run and the token, and compare both repositories with what they should be; changes nothing.

    Args:
        run: a finished run folder.
        model_repo, space_repo: `org/name` each; they are created when they are first uploaded to.
        private: new repositories are private, and one that is public already is an error.
        tree: this project's folder, for the Space.

    Raises:
        PublishError: no package, no token, no such right, or the Hub cannot be reached.
    """
    for repo in (model_repo, space_repo):
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
            raise PublishError(f"{repo}: is no name of a repository; it is org/name, of a model and a Space alike")
    api, model_content, space_content = HfApi(), model_files(run, model_repo), space_files(tree)
    _check_token(api)
    model = compare(api, "model", model_repo, model_content, private)
    space = compare(api, "space", space_repo, space_content, private)
    return Release(api, model, space, _pin(api, space))


def _check_token(api: HfApi) -> None:
    if get_token() is None:
        raise PublishError("no token for the Hub; log in with `hf auth login`, or set HF_TOKEN")
    with one_line("the Hub"):
        api.whoami()


def _pin(api: HfApi, space: Update) -> str | None:
    if space.head is None:
        return None
    with one_line(space.repo):
        variable = api.get_space_variables(space.repo).get(VARIABLE)
        return variable.value if variable else None


def _told(update: Update, commit: str) -> str:
    done = (
        f"{len(update.pending)} files in commit {commit}" if update.pending else f"nothing has changed since {commit}"
    )
    return f"{update.kind} {update.repo}: {done}"
