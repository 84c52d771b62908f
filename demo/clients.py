"""What one client may use of the server: open requests, requests a second, and bytes of uploads."""

import contextlib
import ipaddress
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from fastapi import HTTPException

from demo.sweeping import LIVE
from demo.uploads import MAX_BATCH_BYTES

# A browser holds at most six connections to a host; a whole class may share one address.
MAX_OPEN = 256
# Requests that reach gradio's functions: so many at once, and so many a second in the long run.
BURST, RATE = 300, 60
# Bytes of uploads that came within LIVE seconds, which is how long they are kept: of one client, and of all of them.
MAX_CLIENT_BYTES = 2 * MAX_BATCH_BYTES
MAX_STORED_BYTES = 8 * MAX_BATCH_BYTES
# The least that a file counts for: a folder of a million empty files is full too.
LEAST_FILE_BYTES = 256 * 2**10
# Bytes are counted per slice of time, so that a client costs the same memory however often it sends.
SLICE = 20.0


@dataclass
class _Usage:
    """What one client has used lately."""

    open: int = 0
    tokens: float = BURST
    refilled: float = 0.0
    sent: dict[int, int] = field(default_factory=dict)  # slice of time -> bytes


class Clients:
    """Keep account of every client that used the server within the last minutes.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._usages: defaultdict[str, _Usage] = defaultdict(_Usage)
        self._swept = clock()
        self._stored = 0  # bytes that all clients sent lately

    @contextlib.contextmanager
    def request(self, client: str, cost: int) -> Iterator[None]:
        """Hold one open request of a client.

        Args:
            cost: tokens that the request takes; 0 for one that costs next to nothing, such as a file of the page.

        Raises:
            HTTPException: 429, the client has too many open requests or sends too many.
        """
        usage = self._usages[client]
        if usage.open >= MAX_OPEN:
            raise _too_much(f"more than {MAX_OPEN} open requests from one address; close some")
        now = self._clock()
        usage.tokens = min(BURST, usage.tokens + (now - usage.refilled) * RATE)
        usage.refilled = now
        if usage.tokens < cost:
            raise _too_much(f"more than {RATE} requests a second from one address; slow down")
        usage.tokens -= cost
        usage.open += 1
        try:
            yield
        finally:
            usage.open -= 1
            self._sweep()

    def receive(self, client: str, size: int) -> None:
        """Add bytes of an upload to a client's account.

        Raises:
            HTTPException: 429, the client has sent too much lately; 503, all clients together have.
        """
        if self._sent(client) + size > MAX_CLIENT_BYTES or self._stored + size > MAX_STORED_BYTES:
            self._sweep(force=True)
        if self._sent(client) + size > MAX_CLIENT_BYTES:
            raise _too_much(f"more than {MAX_CLIENT_BYTES >> 20} MB of uploads in {LIVE // 60} minutes; wait")
        if self._stored + size > MAX_STORED_BYTES:
            raise HTTPException(503, "The server holds as many uploads as it may. Please try again in a minute.")
        sent, now = self._usages[client].sent, int(self._clock() / SLICE)
        sent[now] = sent.get(now, 0) + size
        self._stored += size

    def _sent(self, client: str) -> int:
        return sum(self._usages[client].sent.values())

    def __len__(self) -> int:
        return len(self._usages)

    def _sweep(self, force: bool = False) -> None:
        """Forget what is older than LIVE, and clients that have nothing left on their account."""
        now = self._clock()
        if not force and now - self._swept < SLICE:
            return
        self._swept = now
        oldest = math.floor((now - LIVE) / SLICE)
        for client, usage in list(self._usages.items()):
            usage.sent = {slice_: size for slice_, size in usage.sent.items() if slice_ >= oldest}
            if not usage.open and not usage.sent and (now - usage.refilled) * RATE >= BURST:
                del self._usages[client]
        self._stored = sum(sum(usage.sent.values()) for usage in self._usages.values())


@lru_cache(4096)
def client_of(address: tuple[str, int] | None) -> str:
    """Return whom an address is counted as: itself, or the network of an IPv6 address, of which one client has many."""
    host = address[0] if address else ""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network(f"{ip}/64", strict=False).network_address)


def _too_much(message: str) -> HTTPException:
    return HTTPException(429, message[0].upper() + message[1:] + ".", {"Retry-After": "60"})
