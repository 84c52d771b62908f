"""A Hugging Face Hub of our own on 127.0.0.1: repositories from local folders, faults on demand.

    with LoopbackHub() as hub:
        hub.add("datasets", "timm/nih-chest-xray-14", folder, commit)
        hub.faults.append(Fault(r"\\.parquet", status=429, headers={"Retry-After": "1"}))
        ...  # in processes with HF_ENDPOINT=hub.endpoint, or in this one after hub.take_over(monkeypatch)
        assert hub.requests[-1].status == 206

It answers what huggingface_hub, datasets and transformers ask to read: info, revision, tree, paths-info, and resolve
with HEAD, GET and ranges. `hub.route(method, pattern, handler)` adds calls (to write, say); later routes come first.
"""

import contextlib
import json
import mimetypes
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import datasets
import pytest
import transformers.utils.hub
from huggingface_hub import constants

from tests.hubs.repositories import COMMIT, KINDS, Answer, Repo, etag, info, paths_info, resolve, tree

CHUNK_BYTES = 1 << 16


@dataclass
class Fault:
    """What happens to the next `times` requests whose path matches `path`, instead of or during the answer.

    status: answer with this status and `headers`. cut_after: close the connection after so many bytes of the body.
    pause: seconds before every `chunk` bytes of the body.
    """

    path: str
    times: int = 1
    method: str = "GET"
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    pause: float = 0.0
    chunk: int = CHUNK_BYTES


@dataclass(frozen=True)
class Request:
    """What was asked and how it was answered; the start and end of the range are those of the Range header."""

    method: str
    path: str
    range: str | None
    status: int
    at: float


class LoopbackHub:
    """Serves while it is entered. `requests` lists all that was asked, `faults` what will go wrong next."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.connections: list[socket.socket] = []
        self.lock = threading.Lock()
        self._cache = tempfile.TemporaryDirectory()
        self._routes: list[tuple[str, re.Pattern, Callable[..., Any]]] = []
        kind, repo, rev = f"(?P<kind>{'|'.join(KINDS)})", r"(?P<repo>[\w.-]+/[\w.-]+)", "(?P<revision>[^/]+)"
        self.route("GET", rf"/api/{kind}/{repo}", info)
        self.route("GET", rf"/api/{kind}/{repo}/revision/{rev}", info)
        self.route("GET", rf"/api/{kind}/{repo}/tree/{rev}(?:/(?P<under>.*))?", tree)
        self.route("POST", rf"/api/{kind}/{repo}/paths-info/{rev}", paths_info)
        self.route("GET", rf"/(?:(?P<kind>datasets|spaces)/)?{repo}/resolve/{rev}/(?P<path>.+)", resolve)

    def add(self, kind: str, name: str, folder: Path, commit: str = COMMIT) -> Repo:
        self.repos[kind, name] = Repo(kind, name, Path(folder), commit)
        return self.repos[kind, name]

    def route(self, method: str, pattern: str, handler: Callable[..., Answer | Path]) -> None:
        """Call `handler(hub, request, **groups of the pattern)` for such a path; a HEAD goes where a GET would."""
        self._routes.insert(0, (method, re.compile(pattern), handler))

    def __enter__(self) -> "LoopbackHub":
        hub = self

        class Bound(Handler):
            pass

        Bound.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._cache.cleanup()
        for connection in self.connections:  # kept alive, they would be answered still
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def take_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Turn this process's huggingface_hub and datasets to it, as HF_ENDPOINT would have at the start."""
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE
        path = template[template.index("/{repo_id}") :]
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", self.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", self.endpoint + path)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", self._cache.name)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)  # it keeps the address that it was made with
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", self.endpoint)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)

    def find(self, method: str, path: str) -> tuple[Callable[..., Any], dict[str, str]] | None:
        method = "GET" if method == "HEAD" else method
        for known, pattern, handler in self._routes:
            if known == method and (match := pattern.fullmatch(path)):
                return handler, match.groupdict()
        return None

    def repo(self, kind: str | None, name: str, revision: str | None) -> Repo | Answer:
        """The repository, or the answer that says what is not there."""
        repo = self.repos.get((kind or "models", name))
        if repo is None:
            return Answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if revision not in (None, "main", repo.commit):
            return Answer({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return repo

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None


class Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    # Small answers would otherwise wait 40 ms for the peer's acknowledgement.
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.hub.connections.append(self.connection)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (TimeoutError, ConnectionError):
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        path, self.query, self.extra = unquote(parts.path), parse_qs(parts.query), {}
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.fault = self.hub.take_fault(self.command, path)
        if self.fault and self.fault.status:
            return self._send_json(Answer({"error": "a fault"}, self.fault.status, self.fault.headers))
        route = self.hub.find(self.command, path)
        if route is None:
            return self._send_json(Answer({"error": f"no route for {self.command} {path}"}, 404))
        handler, groups = route
        answer = handler(self.hub, self, **{key: value for key, value in groups.items() if value is not None})
        if isinstance(answer, Path):
            self._send_file(answer)
        else:
            self._send_json(answer)

    def _begin(self, status: int, headers: dict[str, str], length: int) -> None:
        with self.hub.lock:
            self.hub.requests.append(
                Request(self.command, unquote(self.path), self.headers.get("Range"), status, time.monotonic())
            )
        self.send_response(status)
        for name, value in {**self.extra, **headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_json(self, answer: Answer) -> None:
        body = b"" if answer.content is None else json.dumps(answer.content).encode()
        self._begin(answer.status, {"Content-Type": "application/json", **answer.headers}, len(body))
        self._send_body(body)

    def _send_file(self, path: Path) -> None:
        size = path.stat().st_size
        headers = {
            "ETag": f'"{etag(path)}"',
            "Accept-Ranges": "bytes",
            "Content-Type": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
        }
        start, stop, status = 0, size, 200
        if match := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last = match.groups()
            start = int(first) if first else size - int(last)
            stop = min(int(last) + 1, size) if first and last else size
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            if start >= size:
                return self._send_json(Answer(None, 416, {"Content-Range": f"bytes */{size}"}))
        self._begin(status, headers, stop - start)
        with path.open("rb") as file:
            file.seek(start)
            self._send_body(file.read(stop - start))

    def _send_body(self, body: bytes) -> None:
        if self.command == "HEAD":
            return
        fault = self.fault
        if fault and fault.cut_after is not None:
            self.wfile.write(body[: fault.cut_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if not fault or not fault.pause:
            self.wfile.write(body)
            return
        for start in range(0, len(body), fault.chunk):
            time.sleep(fault.pause)
            self.wfile.write(body[start : start + fault.chunk])
            self.wfile.flush()
