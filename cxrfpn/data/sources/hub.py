"""Make reading from the Hugging Face Hub patient: what `datasets` and `huggingface_hub` lack for hours of streaming.

Both libraries retry. This module sets how often, passes a server's failure on as a lost connection (which both retry),
keeps what had come of a range that was cut, ends connections that crawl, and says in one line what happened.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

import datasets
import httpx2
from huggingface_hub import get_session, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from cxrfpn.data.schema import SourceError

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

# Seconds between the attempts to open a data set; after the last one it is given up.
OPENING_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, None)
# A read that failed: huggingface_hub asks six times within half a minute, and datasets lets it do so this often.
READ_TRIES, READ_WAIT = 4, 5.0
# A peer that sends fewer bytes a second than this, over so many seconds, is given up for another connection.
LEAST_RATE, RATE_SECONDS = 8192.0, 30.0
# A connection that brought this much before it broke is no failure: another one brings the rest of the range.
WORTHWHILE_BYTES = 1 << 18
# While one thread exchanges the client of huggingface_hub, others would get none.
_SETTING = threading.Lock()
_FINAL: dict[type[Exception], str] = {
    OfflineModeIsEnabled: "the Hub is switched off by HF_HUB_OFFLINE; unset it, or use a source on this disk",
    GatedRepoError: "asks for consent first; give it on its page on the Hub, and log in with `hf auth login`",
    RepositoryNotFoundError: "no such data set on the Hub, or a private one; check its name and `hf auth login`",
    RevisionNotFoundError: "the data set has no such revision",
}


def be_patient() -> None:
    """Set the libraries' retries for this process, and leave one log line for each; safe to call from many threads."""
    with _SETTING:
        _set_retries()


@cache
def _set_retries() -> None:
    tqdm.get_lock()  # made for all threads: the first bar that ends would take away one of its own from the others
    config = datasets.config
    config.STREAMING_READ_MAX_RETRIES = config.STREAMING_OPEN_MAX_RETRIES = READ_TRIES
    config.STREAMING_READ_RETRY_INTERVAL = config.STREAMING_OPEN_RETRY_INTERVAL = READ_WAIT
    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    logging.getLogger("huggingface_hub.utils._http").addFilter(lambda record: "thrown while" in record.getMessage())
    hooks = get_session().event_hooks
    watched = {**hooks, "response": [*hooks["response"], _watch]}
    set_client_factory(lambda: httpx2.Client(event_hooks=watched, follow_redirects=True, timeout=None))


def patiently(call: Callable[[], Result], what: str) -> Result:
    """Call until it succeeds; `what` names it in errors.

    Raises:
        SourceError: another attempt cannot help, or none has helped.
    """
    be_patient()
    for wait in OPENING_WAITS:
        try:
            return call()
        except SourceError:
            raise
        except Exception as error:
            if wait is None or not _may_pass(error):
                raise SourceError(f"{what}: {reason_of(error)}") from None
            logger.warning("%s: %s; trying again in %.0f s", what, _cause(error), wait)
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def reason_of(error: BaseException) -> str:
    """Say in one line why a data set cannot be read, and what to do."""
    for kind, words in _FINAL.items():
        if any(isinstance(each, kind) for each in _chain(error)):
            return words
    if _may_pass(error):
        return f"the Hub cannot be read ({_cause(error)}); run it again later"
    return f"cannot be read ({_cause(error)})"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _may_pass(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    statuses = [each.response.status_code for each in _chain(error) if isinstance(each, HfHubHTTPError)]
    lost = any(isinstance(each, httpx2.TransportError) for each in _chain(error))
    return lost or any(status >= 500 or status in (408, 429) for status in statuses)


def _cause(error: BaseException) -> str:
    for each in _chain(error):
        if isinstance(each, HfHubHTTPError):
            return f"HTTP {each.response.status_code}"
        if isinstance(each, httpx2.TransportError):
            error = each
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _watch(response: httpx2.Response) -> None:
    """Fail a ranged read that is not answered as one, and watch over the others."""
    if "Range" not in response.request.headers or response.is_redirect:
        return
    if response.status_code >= 500 and "Retry-After" not in response.headers:
        raise httpx2.ReadError(f"HTTP {response.status_code}")  # datasets retries lost connections, but no 503
    if response.status_code == 200:
        raise SourceError(f"{response.url}: the server does not serve ranges of bytes")
    response.stream = _Range(response.stream, response.request)


class _Range(httpx2.SyncByteStream):
    """The body of a ranged read: the rest comes by another connection where this one breaks or crawls."""

    def __init__(self, stream: httpx2.SyncByteStream, request: httpx2.Request) -> None:
        self._stream, self._request, self.close = stream, request, stream.close

    def __iter__(self) -> Iterator[bytes]:
        began, received = time.monotonic(), 0
        try:
            for chunk in self._stream:
                yield chunk
                received, elapsed = received + len(chunk), time.monotonic() - began
                if elapsed > RATE_SECONDS and received < elapsed * LEAST_RATE:
                    raise httpx2.ReadTimeout(f"{received} bytes in {elapsed:.0f} s are too slow")
        except httpx2.TransportError:
            if received < WORTHWHILE_BYTES:
                raise
            first, last = self._request.headers["Range"].removeprefix("bytes=").split("-")
            headers = {**self._request.headers, "range": f"bytes={int(first) + received}-{last}"}
            timeout = httpx2.Timeout(**self._request.extensions["timeout"])
            with get_session().stream("GET", self._request.url, headers=headers, timeout=timeout) as rest:
                yield from rest.iter_raw()
