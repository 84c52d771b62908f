"""The guard before gradio: what the page and the API do not need is answered here and goes no further.

gradio serves some fifty routes; many of them store, fetch or compute what a visitor names. An allow-list stands before
them, and limits on origins, on bodies and on what one client may use.
"""

import os
import re
from collections.abc import Callable

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.bodies import (
    MAX_JSON_BYTES,
    MAX_TOOLS_BYTES,
    MAX_UPLOAD_BYTES,
    Body,
    JsonCheck,
    ToolsCheck,
    UploadCheck,
    too_large,
)
from demo.clients import Clients, client_of

API = "/gradio_api"
UPLOAD = f"{API}/upload"
TOOLS = re.compile(rf"{API}/mcp/?")
# What the page itself consists of: files that cost next to nothing.
PARTS = r"/(?:theme\.css|robots\.txt|favicon\.ico|manifest\.json|pwa_icon|(?:assets|static)/[\w./@-]+)"
ID = r"[\w-]{1,64}"
LONGEST_QUERY = 256
ROUTES = {
    "GET": re.compile(
        rf"/|/config/?|{PARTS}"
        rf"|{API}/(?:info/?|theme\.css|heartbeat/{ID}|queue/data|upload_progress|call/\w{{1,64}}/{ID})"
    ),
    "POST": re.compile(rf"{UPLOAD}|{API}/(?:queue/join|call/\w{{1,64}}|cancel|reset)"),
}
# Scripts and styles stand in the page itself, and gradio makes functions of text; but nothing is fetched from, sent to
# or framed by anybody else.
POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}
# The pages in which the Hub shows a Space.
SPACE_FRAMES = "https://huggingface.co https://*.hf.space"


class Guard:
    """An ASGI application around gradio's.

    Args:
        app: gradio's.
        has_tools: whether assistants may call it, by the Model Context Protocol.
    """

    def __init__(self, app: ASGIApp, has_tools: bool = False):
        self.app = app
        self.has_tools = has_tools
        self.clients = Clients()
        self.headers = security_headers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":  # nothing here needs one
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, self._with_headers(scope["path"], send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        client = client_of(scope.get("client"))
        try:
            if not (self.has_tools and TOOLS.fullmatch(scope["path"])):
                check_route(scope["method"], scope["path"])
            check_query(scope["query_string"])
            check_origin(headers)
            with self.clients.request(client, cost=0 if re.fullmatch(PARTS, scope["path"]) else 1):
                body = self._body(scope["path"], headers, receive, client)
                await self.app(_inner(scope, client), body, send)
        except HTTPException as refusal:
            answer = JSONResponse({"detail": refusal.detail}, refusal.status_code, refusal.headers)
            await answer(scope, receive, send)

    def _body(self, path: str, headers: Headers, receive: Receive, client: str) -> Body:
        check: Callable[[bytes], None]
        if path == UPLOAD:
            most, check = MAX_UPLOAD_BYTES, UploadCheck(
                headers.get("content-type", ""), lambda size: self.clients.receive(client, size)
            )  # fmt: skip
        elif TOOLS.fullmatch(path):  # files stand in the JSON
            most, check = MAX_TOOLS_BYTES, ToolsCheck(lambda size: self.clients.receive(client, size))
        else:
            most, check = MAX_JSON_BYTES, JsonCheck()
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > most:
            raise too_large(most)
        return Body(receive, most, check)

    def _with_headers(self, path: str, send: Send) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self.headers)
                if path.startswith(API):  # answers hold radiographs
                    headers["Cache-Control"] = "no-store"
            await send(message)

        return send_with_headers


def check_route(method: str, path: str) -> None:
    """Refuse what is no part of the page or the API.

    Raises:
        HTTPException: 404.
    """
    allowed = ROUTES.get("GET" if method == "HEAD" else method)
    if allowed is None or not allowed.fullmatch(path) or ".." in path:
        raise HTTPException(404, "Not found.")


def check_query(query: bytes) -> None:
    """Refuse long values: gradio keeps some of them, such as the name of a session or of an upload.

    Raises:
        HTTPException: 400.
    """
    if len(query) > LONGEST_QUERY:
        raise HTTPException(400, f"The address has more than {LONGEST_QUERY} characters behind its question mark.")


def check_origin(headers: Headers) -> None:
    """Refuse what a page of another origin asks in a visitor's browser.

    Raises:
        HTTPException: 403.
    """
    origin = headers.get("origin")
    own = {headers.get("host"), headers.get("x-forwarded-host"), os.environ.get("SPACE_HOST")}
    if origin is not None and origin.partition("://")[2] not in own - {None, ""}:
        raise HTTPException(403, "Another site may not call this one from a browser.")


def security_headers() -> dict[str, str]:
    """Return what every answer carries. A Space must be framed by the Hub's page; anywhere else only by itself."""
    is_space = "SPACE_ID" in os.environ
    policy = POLICY | {"frame-ancestors": f"'self' {SPACE_FRAMES}" if is_space else "'self'"}
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    }
    return headers if is_space else headers | {"X-Frame-Options": "SAMEORIGIN"}


def _inner(scope: Scope, client: str) -> Scope:
    """Return what gradio gets to see.

    Its own check of origins, which lets every site in, has nothing to answer; links that bring back somebody's
    session do nothing. Tools call the API from this machine, and name the client for whom they do.
    """
    headers = [(name, value) for name, value in scope["headers"] if name not in (b"origin", b"x-forwarded-for")]
    headers.append((b"x-forwarded-for", client.encode()))
    query = b"" if scope["path"] == "/" else scope["query_string"]
    return {**scope, "headers": headers, "query_string": query}
