"""A data set on the Hugging Face Hub, read in byte ranges that survive what networks do.

huggingface_hub asks again for the whole of a range that was cut, and waits for ever on a peer that sends a byte now and
then. Over hours of streaming both happen, so the reading is done here: what has come is kept, and a connection that
fails, stalls or crawls is given up for another one, after waits that grow, until it is clear that it will not do.
"""

import io
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, parse_ratelimit_headers

from cxrfpn.data.schema import SourceError

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

# What another try may mend, besides every 5xx: a request timed out on the server's side, too many requests.
TRANSIENT_STATUSES = (408, 429)
# A connection that brought this much before it broke was worth having, and does not count as a failure.
WORTHWHILE_BYTES = 1 << 18


@dataclass(frozen=True)
class Patience:
    """How long to put up with a network; times in seconds.

    The waits double from `first_wait` to `longest_wait`, `tries` times in all: some two minutes without a success.
    A server that names the wait itself (Retry-After) is obeyed up to `longest_retry_after`. `timeout` is how long a
    peer may be silent; one that sends less than `least_rate` bytes a second over that time is as good as silent.
    """

    tries: int = 8
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_retry_after: float = 900.0
    timeout: float = 30.0
    least_rate: float = 8192.0


class HubFiles:
    """The files of a data set on the Hub at one revision; HF_ENDPOINT and the user's token apply.

    Args:
        revision: a commit, a branch or a tag. Whatever it is, all that is read comes from the commit it stands for.
    """

    def __init__(self, repo: str, revision: str, patience: Patience = Patience()) -> None:
        self.repo, self.revision, self.patience = repo, revision, patience

    @property
    def name(self) -> str:
        """`org/name@commit`."""
        return f"{self.repo}@{self._commit}"

    def names(self) -> list[str]:
        return sorted(self._sizes)

    def open(self, name: str) -> "HubFile":
        url = hf_hub_url(self.repo, name, repo_type="dataset", revision=self._commit)
        return HubFile(url, self._sizes[name], f"{self.repo}/{name}", self.patience)

    @property
    def _commit(self) -> str:
        is_commit = len(self.revision) == 40 and set(self.revision) <= set("0123456789abcdef")
        return self.revision if is_commit else self._listing[0]

    @property
    def _sizes(self) -> dict[str, int]:
        return self._listing[1]

    @cached_property
    def _listing(self) -> tuple[str, dict[str, int]]:
        """The commit, and file -> size in bytes."""
        what = f"{self.repo}@{self.revision}"

        def ask() -> tuple[str, dict[str, int]]:
            info = HfApi().dataset_info(
                self.repo, revision=self.revision, files_metadata=True, timeout=self.patience.timeout
            )
            return info.sha, {file.rfilename: file.size for file in info.siblings}

        return _patiently(ask, what, self.patience)


class HubFile(io.RawIOBase):
    """One file on the Hub, seekable, each read a range of bytes that is asked for as often as it takes."""

    def __init__(self, url: str, size: int, name: str, patience: Patience) -> None:
        super().__init__()
        self._url, self._size, self._name, self._patience = url, size, name, patience
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill the buffer, or what the file still has of it.

        Raises:
            SourceError: the Hub will not give it, or patience is at an end.
        """
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self._size)
        start, tries = self._position, _Tries(self._name, self._patience)
        while self._position < stop:
            before = self._position
            try:
                for chunk in self._range(self._position, stop):
                    chunk = chunk[: stop - self._position]
                    view[self._position - start : self._position - start + len(chunk)] = chunk
                    self._position += len(chunk)
                if self._position < stop:
                    raise httpx2.RemoteProtocolError("the connection was cut")
            except (httpx2.TransportError, HfHubHTTPError, OfflineModeIsEnabled) as error:
                if self._position - before >= WORTHWHILE_BYTES:
                    tries.begin_again()
                tries.failed(error)
        return max(stop - start, 0)

    def _range(self, start: int, stop: int) -> Iterator[bytes]:
        # Compressed on the way, the bytes would no longer be those of the range.
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        timeout = self._patience.timeout
        with get_session().stream("GET", self._url, headers=headers, timeout=timeout) as response:
            if response.is_error:
                response.read()
            hf_raise_for_status(response)
            if response.status_code != 206 and start > 0:
                raise SourceError(f"{self._name}: the server does not serve ranges of bytes")
            began, received = time.monotonic(), 0
            for chunk in response.iter_raw():
                yield chunk
                received += len(chunk)
                elapsed = time.monotonic() - began
                if elapsed > timeout and received < elapsed * self._patience.least_rate:
                    raise httpx2.ReadTimeout(f"{received} bytes in {elapsed:.0f} s are too slow")


def _patiently(call: Callable[[], Result], what: str, patience: Patience) -> Result:
    """Call, as often as it takes, within reason."""
    tries = _Tries(what, patience)
    while True:
        try:
            return call()
        except (httpx2.TransportError, HfHubHTTPError, OfflineModeIsEnabled) as error:
            tries.failed(error)


class _Tries:
    """Counts failures, and waits longer after each; `what` is what errors call the thing that was tried."""

    def __init__(self, what: str, patience: Patience) -> None:
        self._what, self._patience, self._failures = what, patience, 0

    def begin_again(self) -> None:
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Wait before the next try.

        Raises:
            SourceError: no other try can help, or there were enough.
        """
        if (why := _hopeless(error)) is not None:
            raise SourceError(f"{self._what}: {why}") from None
        self._failures += 1
        if self._failures >= self._patience.tries:
            raise SourceError(
                f"{self._what}: the Hub cannot be read ({_cause(error)}, {self._failures} times); run it again later"
            ) from None
        wait = self._wait(error)
        logger.warning("%s: %s; trying again in %.0f s", self._what, _cause(error), wait)
        time.sleep(wait)

    def _wait(self, error: Exception) -> float:
        asked = _retry_after(error)
        if asked is not None:
            return min(asked, self._patience.longest_retry_after)
        wait = min(self._patience.first_wait * 2 ** (self._failures - 1), self._patience.longest_wait)
        return wait * random.uniform(0.75, 1.25)  # many processes should not all come back at once


def _retry_after(error: Exception) -> float | None:
    """Seconds that the server asks us to wait, in either of the ways in which the Hub says so."""
    if not isinstance(error, HfHubHTTPError):
        return None
    limit = parse_ratelimit_headers(error.response.headers)
    if error.response.status_code == 429 and limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1.0
    seconds = error.response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdecimal() else None


def _hopeless(error: Exception) -> str | None:
    """Why trying again is no use; None where it may be."""
    if isinstance(error, OfflineModeIsEnabled):
        return "the Hub is switched off by HF_HUB_OFFLINE; unset it, or use a source on this disk"
    if isinstance(error, GatedRepoError):
        return "asks for consent first; give it on its page on the Hub, and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "no such data set on the Hub, or a private one; check the name, or log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "the data set has no such revision"
    if isinstance(error, RemoteEntryNotFoundError):
        return "the data set has no such file"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return None if status >= 500 or status in TRANSIENT_STATUSES else f"the Hub refuses it (HTTP {status})"
    return None


def _cause(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, httpx2.TimeoutException):
        return str(error) if "too slow" in str(error) else "no answer in time"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
