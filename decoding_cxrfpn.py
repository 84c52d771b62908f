"""Decode files in worker processes, so that a file which crashes, hangs or fills a decoder ends only its worker.

The worker is WORKER, run as a script. It imports numpy, Pillow, pydicom and its decoders, and never torch.
"""

import atexit
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypedDict, cast

import numpy as np

try:
    import resource
except ImportError:  # Windows has no limits of this kind; the time limit holds there too
    resource = None  # type: ignore[assignment]

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .pixels_cxrfpn import MAX_PIXELS, RadiographError
except ImportError:
    from pixels_cxrfpn import MAX_PIXELS, RadiographError

WORKER = Path(__file__).resolve().with_name("radiograph_cxrfpn.py")
# Workers of one process: threads that read ahead decode side by side.
MAX_WORKERS = min(4, max(2, os.cpu_count() or 1))
# A worker that waits for a busy machine is no attack, so the clock on the wall is more patient than that of the CPU.
WALL_PER_CPU = 6
START_SECONDS = 60

# Environment variables that the worker keeps, by how they begin. Tokens and keys are not among them.
KEPT_VARIABLES = ("PATH", "PYTHON", "COVERAGE", "LD_", "DYLD_", "LANG", "LC_", "TMP", "TEMP", "SYSTEM", "WINDIR")
OUT_OF_MEMORY = "needs too much memory to be decoded; shrink it"
READY = b"ready\n"
# A request is the lengths of its JSON and of the file, then both; an answer is the length of its JSON, the JSON, and
# the pixels.
REQUEST, ANSWER = struct.Struct("<IQ"), struct.Struct("<I")
MAX_JSON_BYTES = 2**16


def limits_of(max_pixels: int) -> dict[str, int]:
    """Seconds of the CPU and bytes of memory that a file of so many pixels may take.

    Both are twice what JPEG 2000 of 100 megapixels and 16 bits takes, the slowest coding (10 s and 2.5 GB).
    """
    return {"cpu_seconds": 5 + max_pixels // 5_000_000, "memory": 2**30 + 40 * max_pixels}


def decode_apart(
    data: bytes, name: str, least_side: int | None, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, dict[str, object]]:
    """Decode the bytes of a file in a worker process.

    Safe to call from several threads. Workers start at the first call and are replaced when they die.

    Args:
        data: the file.
        name: what errors call it.
        least_side: as for `read_radiograph`.
        max_pixels: the same; it limits time and memory too, as `limits_of` says.

    Returns:
        pixels [H,W] uint8, and the other fields of the `Radiograph`.

    Raises:
        RadiographError: the file cannot be decoded, ends its worker, or exceeds a limit of time or memory.
    """
    options: dict[str, str | int | None] = {"name": name, "least_side": least_side, "max_pixels": max_pixels}
    return _workers.decode(data, name, {"options": options, "limits": limits_of(max_pixels)})


class Request(TypedDict):
    """What a worker is asked: the arguments of `decode_fields`, and the limits of `limits_of`."""

    options: dict[str, str | int | None]
    limits: dict[str, int]


class _BrokenError(Exception):
    """The worker ended, or answered with something else than an answer."""


class _Worker:
    """One worker process and its two pipes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            pipesize=2**20,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._requests, self._answers = self.process.stdin, cast(io.BufferedReader, self.process.stdout)
        with self._limit(START_SECONDS):
            if self._answers.read(len(READY)) != READY:
                self.stop()
                raise OSError("the decoding process ends as it starts")

    def decode(self, data: bytes, request: Request) -> tuple[np.ndarray | None, dict[str, object]]:
        head = json.dumps(request).encode()
        try:
            with self._limit(WALL_PER_CPU * request["limits"]["cpu_seconds"]):
                for piece in (REQUEST.pack(len(head), len(data)), head, data):
                    self._requests.write(piece)
                self._requests.flush()
                return self._answer()
        except (OSError, ValueError, EOFError, struct.error) as error:
            raise _BrokenError from error

    def _answer(self) -> tuple[np.ndarray | None, dict[str, object]]:
        (length,) = ANSWER.unpack(_read(self._answers, ANSWER.size))
        if length > MAX_JSON_BYTES:
            raise ValueError(length)
        fields = json.loads(_read(self._answers, length))
        if "error" in fields:
            return None, fields
        height, width = fields.pop("shape")
        if not 0 < height * width <= MAX_PIXELS:
            raise ValueError((height, width))
        pixels = np.empty((height, width), np.uint8)
        if self._answers.readinto(memoryview(pixels).cast("B")) != pixels.size:
            raise EOFError
        return pixels, {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}

    def _limit(self, seconds: float) -> "_Deadline":
        return _Deadline(self.process, seconds)

    def stop(self) -> int:
        """End the process, if it has not ended yet, and return its exit code (minus the signal that ended it)."""
        self._answers.close()
        with suppress(OSError):
            self._requests.close()
        try:
            return self.process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class _Deadline:
    """Kills a process that is still at work after so many seconds."""

    def __init__(self, process: subprocess.Popen, seconds: float) -> None:
        self.timer = threading.Timer(seconds, process.kill)
        self.timer.daemon = True

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()


class _Workers:
    """Idle workers, and places for as many as may run at once."""

    def __init__(self) -> None:
        self.idle: list[_Worker] = []
        self.places = threading.BoundedSemaphore(MAX_WORKERS)

    def decode(self, data: bytes, name: str, request: Request) -> tuple[np.ndarray, dict[str, object]]:
        with self.places:
            try:
                worker = self._take()
            except OSError as error:
                raise RadiographError(f"{name}: no process can be started to decode it ({error})") from None
            try:
                pixels, fields = worker.decode(data, request)
            except _BrokenError:
                seconds = request["limits"]["cpu_seconds"]
                raise RadiographError(f"{name}: {_reason(worker.stop(), seconds)}") from None
            except BaseException:  # an interrupt leaves half an answer in the pipe
                worker.process.kill()
                worker.stop()
                raise
            self.idle.append(worker)
        if pixels is None:
            raise RadiographError(fields["error"])
        return pixels, fields

    def _take(self) -> _Worker:
        while self.idle:
            try:
                worker = self.idle.pop()
            except IndexError:  # another thread was faster
                break
            if worker.process.poll() is None:
                return worker
            worker.stop()
        return _Worker()

    def stop(self) -> None:
        while self.idle:
            self.idle.pop().stop()


def _reason(exit_code: int, seconds: int) -> str:
    """Return what to say of a file that ended its worker."""
    too_long = {-getattr(signal, name) for name in ("SIGXCPU", "SIGKILL") if hasattr(signal, name)}
    if exit_code in too_long:
        return f"its pixels cannot be decoded within {seconds} seconds; save it uncompressed, or shrink it"
    return "its compressed pixels cannot be decoded safely (they crash the decoder); save it uncompressed"


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.upper().startswith(KEPT_VARIABLES)}
    # Each thread of OpenBLAS would take memory that counts against the limit.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**kept, **threads, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError
    return data


_workers = _Workers()


def _renew() -> None:
    """Give a forked process workers of its own: two processes must not share a pipe."""
    global _workers
    _workers = _Workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
atexit.register(lambda: _workers.stop())


def serve(decode: Callable[..., tuple[np.ndarray, dict[str, object]]]) -> None:
    """Answer requests until there are no more. The worker's main function.

    Args:
        decode: takes the bytes of a file and the options of a request, and returns what `decode_apart` does.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # decoders in C print their warnings there
    # pydicom would load this client for downloads, which takes longer than all the rest: let its import fail.
    sys.modules["requests"] = None  # type: ignore[assignment]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    answers.write(READY)
    answers.flush()
    while head := requests.read(REQUEST.size):
        json_bytes, file_bytes = REQUEST.unpack(head)
        request, data = json.loads(_read(requests, json_bytes)), _read(requests, file_bytes)
        _set_limits(**request["limits"])
        try:
            pixels, fields = decode(data, **request["options"])
        except RadiographError as error:
            pixels, fields = None, {"error": str(error)}
        except MemoryError:
            pixels, fields = None, {"error": f"{request['options']['name']}: {OUT_OF_MEMORY}"}
        del data
        if pixels is not None:
            pixels, fields = np.ascontiguousarray(pixels), {**fields, "shape": pixels.shape}
        described = json.dumps(fields).encode()
        answers.write(ANSWER.pack(len(described)) + described)
        if pixels is not None:
            answers.write(memoryview(pixels).cast("B"))
        answers.flush()


def _set_limits(cpu_seconds: int, memory: int) -> None:
    """Limit the memory of this process in bytes, and the time that it may still spend on the CPU."""
    if resource is None:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: int(usage.ru_utime + usage.ru_stime) + cpu_seconds + 1,
    }
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        with suppress(ValueError, OSError):  # macOS does not limit memory
            resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
