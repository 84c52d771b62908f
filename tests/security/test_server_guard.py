"""The guard before gradio: routes, origins, headers and bodies, over real sockets."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, Request

from demo import bodies, clients, guard, serving
from demo.bodies import Body, JsonCheck, UploadCheck
from demo.clients import Clients, client_of
from demo.guard import Guard, check_route, security_headers
from tests.ports import free_port

# What gradio serves besides what the page needs.
CLOSED = [
    ("POST", "/gradio_api/run/predict"), ("POST", "/gradio_api/api/predict"), ("POST", "/api/predict/"),
    ("POST", "/gradio_api/call/v2/predict"), ("POST", "/gradio_api/process_recording"),
    ("POST", "/gradio_api/component_server"), ("POST", "/gradio_api/vibe-edit"), ("POST", "/gradio_api/vibe-code"),
    ("POST", "/gradio_api/stream/1"), ("POST", "/gradio_api/run-history/connect"), ("POST", "/login"),
    ("GET", "/gradio_api/deep_link"), ("GET", "/monitoring"), ("GET", "/monitoring/summary"), ("GET", "/monitoring/x"),
    ("GET", "/gradio_api/file=/etc/passwd"), ("GET", "/gradio_api/file=https://example.org/"),
    ("GET", "/gradio_api/file/etc/passwd"), ("GET", "/gradio_api/proxy=https://example.hf.space/"),
    ("GET", "/gradio_api/queue/status"), ("GET", "/gradio_api/startup-events"), ("GET", "/gradio_api/app_id"),
    ("GET", "/gradio_api/openapi.json"), ("GET", "/gradio_api/runs"), ("GET", "/gradio_api/token"),
    ("GET", "/static/../../app.py"), ("GET", "/assets/..%2f..%2fapp.py"), ("GET", "//gradio_api/info"),
    ("PUT", "/gradio_api/upload"), ("DELETE", "/"), ("OPTIONS", "/gradio_api/queue/join"), ("TRACE", "/"),
]  # fmt: skip
OPEN = [
    ("GET", "/"), ("HEAD", "/"), ("GET", "/config"), ("GET", "/theme.css"), ("GET", "/assets/index-a1_b2.js"),
    ("GET", "/static/fonts/a@2x.woff2"), ("GET", "/gradio_api/info"), ("GET", "/gradio_api/queue/data"),
    ("GET", "/gradio_api/heartbeat/0a1b-2c"), ("GET", "/gradio_api/call/predict/0a1b2c"),
    ("POST", "/gradio_api/upload"), ("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/call/predict_batch"),
    ("POST", "/gradio_api/cancel"),
]  # fmt: skip


@pytest.fixture
def behind() -> Iterator[tuple[str, list[tuple[str, int, dict]]]]:
    """A small application behind the guard, on a real server: its address, and what reached it."""
    app, reached = FastAPI(openapi_url=None), []

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def answer(path: str, request: Request) -> dict:
        reached.append((f"/{path}", len(await request.body()), dict(request.headers) | dict(request.query_params)))
        return {}

    port = free_port()
    config = uvicorn.Config(Guard(app), port=port, http=serving.PromptProtocol, ws="none", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}", reached
    server.should_exit = True
    thread.join(10)


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_what_the_page_does_not_need_is_closed(method, path):
    with pytest.raises(HTTPException) as caught:
        check_route(method, path.replace("%2f", "/"))
    assert caught.value.status_code == 404


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_what_the_page_and_programs_need_is_open(method, path):
    check_route(method, path)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost.evil.example", "null", "http://127.0.0.1:9"]
)
def test_a_page_of_another_origin_gets_nothing(behind, origin):
    address, reached = behind
    for method, path in (("GET", "/config"), ("POST", "/gradio_api/queue/join"), ("OPTIONS", "/gradio_api/queue/join")):
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = httpx.request(method, address + path, headers=asks)
        assert answer.status_code in (403, 404)
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert not reached


@pytest.mark.parametrize("proxy", [{}, {"Host": "demo.example"}, {"X-Forwarded-Host": "demo.example"}])
def test_the_pages_own_origin_is_accepted(behind, proxy):
    address, reached = behind
    origin = f"https://{next(iter(proxy.values()), address.partition('://')[2])}"
    answer = httpx.get(f"{address}/config", headers={"Origin": origin, **proxy})
    assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers
    assert "origin" not in reached[0][2]  # so that gradio has none to echo


def test_a_space_may_ask_itself_and_be_shown_by_the_hub(monkeypatch):
    monkeypatch.setenv("SPACE_HOST", "org-demo.hf.space")
    guard.check_origin({"host": "10.0.0.1:7860", "origin": "https://org-demo.hf.space"})
    assert security_headers()["X-Frame-Options"] == "SAMEORIGIN"
    monkeypatch.setenv("SPACE_ID", "org/demo")
    headers = security_headers()
    assert "frame-ancestors 'self' https://huggingface.co" in headers["Content-Security-Policy"]
    assert "X-Frame-Options" not in headers  # it knows no list, and would forbid what the policy allows


def test_every_answer_carries_the_headers(behind):
    address, _ = behind
    for path in ("/", "/monitoring", "/gradio_api/info"):
        headers = httpx.get(address + path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'self'" in headers["content-security-policy"]
        assert headers.get("cache-control") == ("no-store" if "api" in path else None)


def test_a_link_to_somebodys_session_is_a_link_to_the_page(behind):
    address, reached = behind
    assert httpx.get(f"{address}/?deep_link=abc").status_code == 200
    assert "deep_link" not in reached[0][2]
    assert httpx.get(f"{address}/gradio_api/queue/data?session_hash={'a' * 300}").status_code == 400


@pytest.mark.parametrize("declared", [True, False])
def test_json_of_more_than_a_megabyte_is_refused(behind, declared):
    address, reached = behind
    body = json.dumps({"data": ["a" * 2**20]}).encode()
    answer = httpx.post(f"{address}/gradio_api/queue/join", content=body if declared else iter([body]))
    assert answer.status_code == 413 and "1 MB" in answer.json()["detail"]
    assert not reached


@pytest.mark.parametrize("body", [b'{"data":[' + b"[" * 5000, b"[0" + b",0" * 30_000 + b"]", b'{"data":[{},' * 900])
def test_json_of_too_many_values_is_refused_before_it_is_parsed(behind, body):
    address, reached = behind
    assert httpx.post(f"{address}/gradio_api/queue/join", content=body).status_code == 413
    assert not reached


def test_json_of_a_whole_batch_is_taken(behind):
    address, _reached = behind
    file = {"path": "/tmp/a/" + "a" * 200 + ".png", "url": "http://127.0.0.1/" + "a" * 200, "size": 1, "orig_name": "a",
            "mime_type": "image/png", "is_stream": False, "meta": {"_type": "gradio.FileData"}}  # fmt: skip
    body = {"data": [[file] * 200, "youden"], "fn_index": 3, "session_hash": "a"}
    assert httpx.post(f"{address}/gradio_api/queue/join", json=body).status_code == 200


def test_an_upload_consists_of_files_only(behind):
    """gradio keeps other fields in memory, of any size."""
    address, reached = behind
    assert httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.png", b"x" * 99)}).status_code == 200
    for refused in ({"data": {"note": "a"}, "files": {"files": ("a.png", b"x")}}, {"json": {}}, {"content": b"x"}):
        assert httpx.post(f"{address}/gradio_api/upload", **refused).status_code == 400
    assert len(reached) == 1


def test_form_fields_are_refused_before_they_are_in_memory():
    check = UploadCheck("multipart/form-data; boundary=x", lambda size: None)
    check(b"--x\r\nContent-Disposition: form-da")
    check(b'ta; name="files"; filename="a.png"\r\n\r\nabc\r\n--x\r\n')
    with pytest.raises(HTTPException) as caught:
        check(b'Content-Disposition: form-data; name="files"\r\n\r\n')
    assert caught.value.status_code == 400


def test_an_upload_that_stalls_is_ended(behind, monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE", 0.5)
    address, _ = behind
    connection = http.client.HTTPConnection(address.partition("://")[2], timeout=10)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"--x\r\n")
    began = time.monotonic()
    answer = connection.getresponse()
    assert answer.status == 408 and time.monotonic() - began < 5


def test_an_upload_that_trickles_is_ended():
    """A byte every ten seconds is never late, but would hold its place for years."""
    now = 0.0

    async def trickle() -> dict:
        nonlocal now
        now += 10
        return {"type": "http.request", "body": b"x", "more_body": True}

    body = Body(trickle, 1000, JsonCheck(), clock=lambda: now)

    async def read() -> None:
        for _ in range(10):
            await body()

    with pytest.raises(HTTPException) as caught:
        asyncio.run(read())
    assert caught.value.status_code == 408 and now < 40


@pytest.mark.parametrize("begin", [b"", b"GET / HT", b"GET /config HTTP/1.1\r\nHost: a\r\n\r\nGET / HT"])
def test_headers_that_trickle_lose_their_connection(behind, monkeypatch, begin):
    monkeypatch.setattr(serving, "HEADERS_WITHIN", 0.5)
    address, _ = behind
    host, port = address.partition("://")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(begin)
        began = time.monotonic()
        with contextlib.suppress(OSError):  # reset, where it was closed while we were writing
            while time.monotonic() - began < 8:
                time.sleep(0.1)
                connection.sendall(b"T")
        assert time.monotonic() - began < 5


def spend(clients_: Clients, client: str, times: int) -> Callable[[], None]:
    def ask() -> None:
        for _ in range(times):
            with clients_.request(client, cost=1):
                pass

    return ask


def test_a_client_that_asks_too_often_is_told_to_slow_down_and_others_are_not():
    now = 1000.0
    accounts = Clients(clock=lambda: now)
    spend(accounts, "10.0.0.1", clients.BURST)()
    with pytest.raises(HTTPException) as caught:
        spend(accounts, "10.0.0.1", 1)()
    assert caught.value.status_code == 429 and caught.value.headers["Retry-After"]
    spend(accounts, "10.0.0.2", clients.BURST)()
    now += 1
    spend(accounts, "10.0.0.1", clients.RATE)()


def test_open_requests_of_a_client_are_limited():
    accounts = Clients()
    with contextlib.ExitStack() as held:
        for _ in range(clients.MAX_OPEN):
            held.enter_context(accounts.request("10.0.0.1", cost=0))
        with pytest.raises(HTTPException):
            held.enter_context(accounts.request("10.0.0.1", cost=0))
        held.enter_context(accounts.request("10.0.0.2", cost=0))
    spend(accounts, "10.0.0.1", 1)()


def test_uploads_of_a_client_and_of_all_are_limited_until_they_are_deleted():
    now = 1000.0
    accounts = Clients(clock=lambda: now)
    accounts.receive("10.0.0.1", clients.MAX_CLIENT_BYTES)
    with pytest.raises(HTTPException) as caught:
        accounts.receive("10.0.0.1", 1)
    assert caught.value.status_code == 429
    for number in range(2, 5):
        accounts.receive(f"10.0.0.{number}", clients.MAX_CLIENT_BYTES)
    with pytest.raises(HTTPException) as caught:
        accounts.receive("10.0.0.9", 1)
    assert caught.value.status_code == 503
    now += 2 * clients.LIVE
    accounts.receive("10.0.0.1", clients.MAX_CLIENT_BYTES)
    accounts.receive("10.0.0.9", clients.MAX_CLIENT_BYTES)


def test_accounts_of_clients_that_are_gone_are_dropped():
    now = 1000.0
    accounts = Clients(clock=lambda: now)
    for number in range(10_000):
        spend(accounts, f"client {number}", 1)()
    now += 1000
    spend(accounts, "another", 1)()
    assert len(accounts) == 1


def test_many_addresses_of_one_network_are_one_client():
    assert client_of(("2001:db8::1", 1)) == client_of(("2001:db8::ffff:2", 9)) != client_of(("2001:db8:1::1", 1))
    assert client_of(("::ffff:10.0.0.1", 1)) == client_of(("10.0.0.1", 2)) == "10.0.0.1"
    assert client_of(None) == ""
