"""One repository on the Hub: what it has, what differs, and one commit that makes it what it should be."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NoReturn

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from tqdm import tqdm

from cxrfpn.publishing.contents import STALE, PublishError

Kind = Literal["model", "space"]
CALLED = {"model": "a model", "space": "a Space", "dataset": "a data set"}
ADVICE = {
    401: "the token is refused; log in with `hf auth login`, or fix HF_TOKEN",
    403: "the token has no right to write there; make one that has, and log in with `hf auth login`",
    412: "somebody else has changed it meanwhile; run the same command again",
}
CUT = "a commit arrives whole or not at all, so run the same command again"


@dataclass(frozen=True)
class Update:
    """What has to be done to a repository.

    `files` is path -> content as it should be, `states` path -> new, changed, same or deleted; `head` is the commit
    that they were compared with, None where there is no such repository yet. `sdk` is what a new Space runs: gradio or
    static.
    """

    kind: Kind
    repo: str
    private: bool
    head: str | None
    files: Mapping[str, bytes]
    states: Mapping[str, str]
    sdk: str = "gradio"

    @property
    def pending(self) -> list[str]:
        """Paths that are not as they should be."""
        return [path for path, state in self.states.items() if state != "same"]

    def listing(self) -> str:
        """Return a line about the repository, and one for each of its files."""
        counts, sent = Counter(self.states.values()), [len(self.files.get(path, b"")) for path in self.pending]
        summary = ", ".join(f"{count} {state}" for state, count in counts.items())
        where = f"{self.kind} {self.repo} ({'private' if self.private else 'public'}{'' if self.head else ', new'})"
        lines = [f"  {state:<8}{self._size(path):>8}  {path}" for path, state in sorted(self.states.items())]
        return "\n".join([f"{where}: {summary}; {_bytes(sum(sent))} to send", *lines])

    def create(self, api: HfApi) -> None:
        """Create the repository where there is none.

        Raises:
            PublishError: the Hub refuses, or cannot be reached.
        """
        if self.head is None:
            sdk = {"space_sdk": self.sdk} if self.kind == "space" else {}
            with one_line(self.repo):
                api.create_repo(self.repo, repo_type=self.kind, private=self.private or None, **sdk)

    def push(self, api: HfApi, message: str) -> str:
        """Make the repository's files what they should be, in one commit; in none where nothing differs.

        Returns:
            the commit that the repository is at.

        Raises:
            PublishError: the Hub refuses, or cannot be reached.
        """
        if self.head and not self.pending:
            return self.head
        with one_line(self.repo):
            operations = [
                CommitOperationDelete(path) if path not in self.files else CommitOperationAdd(path, self.files[path])
                for path in self.pending
            ]
            commit = api.create_commit(
                self.repo, operations, commit_message=message, repo_type=self.kind, parent_commit=self.head
            )
            return commit.oid

    def _size(self, path: str) -> str:
        return _bytes(len(self.files[path])) if path in self.files else ""


def compare(
    api: HfApi, kind: Kind, repo: str, files: Mapping[str, bytes], private: bool, sdk: str = "gradio"
) -> Update:
    """Find out what has to be done to a repository, changing nothing.

    Raises:
        PublishError: the name belongs to a repository of another kind, one that should be private is public already,
            or the Hub refuses or cannot be reached.
    """
    with one_line(repo):
        try:
            info = api.repo_info(repo, repo_type=kind, files_metadata=True)
        except RepositoryNotFoundError:
            _check_no_other_kind(api, kind, repo)
            return Update(kind, repo, private, None, files, dict.fromkeys(files, "new"), sdk)
        if private and not info.private:
            raise PublishError(f"{repo}: is public on the Hub; make it private there, or leave out --private")
        there = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in info.siblings or ()}
        states = {path: _state(content, there.get(path)) for path, content in files.items()}
        stale = [path for path in there if path not in files and STALE[kind].fullmatch(path)]
        return Update(kind, repo, bool(info.private), info.sha, files, states | dict.fromkeys(stale, "deleted"), sdk)


@contextmanager
def one_line(repo: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into a PublishError."""
    try:
        yield
    except PublishError:
        raise
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        _fail(repo, error)


def _fail(repo: str, error: Exception) -> NoReturn:
    # An upload that fails in a thread of its own comes wrapped, and what happened is its cause.
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    reason = str(cause) or type(cause).__name__
    if isinstance(cause, HfHubHTTPError):
        reason = ADVICE.get(cause.response.status_code) or cause.server_message or reason.strip().splitlines()[0]
    elif isinstance(cause, httpx2.TransportError | ConnectionError):
        reason = f"the connection to the Hub broke ({reason}); {CUT}"
    raise PublishError(f"{repo}: {' '.join(reason.split())}") from None


def _check_no_other_kind(api: HfApi, kind: Kind, repo: str) -> None:
    for other in CALLED.keys() - {kind}:
        if api.repo_exists(repo, repo_type=other):
            raise PublishError(
                f"{repo}: is {CALLED[other]} on the Hub and not {CALLED[kind]}; give another name, or create "
                f"{CALLED[kind]} of that name there first"
            )


def _state(content: bytes, there: str | None) -> str:
    """Hash a file as the Hub does: a large one by sha256, any other by git's sha1 of a blob."""
    if there is None:
        return "new"
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return "same" if there in (blob, hashlib.sha256(content).hexdigest()) else "changed"


def _bytes(count: int) -> str:
    return tqdm.format_sizeof(count, "B", 1000)
