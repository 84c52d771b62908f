"""The page over HTTP: gradio's application, the guard around it, and the server around both."""

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from demo import assistants
from demo.forgetting import NoSessions, keep_forgetting
from demo.guard import Guard
from demo.theme import theme
from demo.uploads import MAX_FILE_BYTES

HERE = Path(__file__).parent
# The headers of a request must be whole within so many seconds.
HEADERS_WITHIN = 20.0
# Connections at once; the files that a process may have open are raised to hold them.
MAX_CONNECTIONS = 2000
# How long answers that are under way may hold up the end, seconds.
CLOSE_WITHIN = 3
# The proxies of a Space have private addresses; what they say of the visitor's own counts.
SPACE_PROXIES = "127.0.0.1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"


def application(page: gr.Blocks, host: str, port: int) -> Guard:
    """Return the page as an ASGI application.

    Args:
        page: what `build` returns.
        host: where it will listen.
        port: the same.
    """
    has_tools = assistants.are_wanted()

    @contextlib.asynccontextmanager
    async def upkeep(_: FastAPI) -> AsyncIterator[None]:
        forgetting = asyncio.create_task(keep_forgetting(page))
        yield
        forgetting.cancel()

    app = gr.mount_gradio_app(
        FastAPI(lifespan=upkeep, openapi_url=None),
        page,
        path="/",
        root_path=os.environ.get("GRADIO_ROOT_PATH", ""),
        max_file_size=MAX_FILE_BYTES,
        css_paths=HERE / "page.css",
        theme=theme(),
        footer_links=[],
        run_history=False,  # else gradio may keep readings, in the browser or in a bucket
        show_error=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=has_tools,
    )
    if has_tools:
        assistants.connect(page, host, port)
    mounted = app.routes[-1].app
    mounted.state_holder = NoSessions()
    mounted.state_holder.set_blocks(page)
    return Guard(app, has_tools)


def serve(page: gr.Blocks, host: str, port: int) -> None:
    """Serve the page until SIGINT or SIGTERM, which are raised again when the server has closed."""
    _allow_open_files(2 * MAX_CONNECTIONS)
    config = uvicorn.Config(
        application(page, host.strip("[]"), port),
        host=host.strip("[]"),
        port=port,
        http=PromptProtocol,
        ws="none",
        log_level="warning",
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=CLOSE_WITHIN,
        forwarded_allow_ips=SPACE_PROXIES if "SPACE_ID" in os.environ else None,  # else as FORWARDED_ALLOW_IPS says
    )
    _Server(config).run()


class PromptProtocol(H11Protocol):
    """HTTP/1.1 for clients that send the headers of a request without delay; others lose their connection."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        self._stop_waiting()

    def _wait_for_headers(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # a request is under way
            self._stop_waiting()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADERS_WITHIN, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        print(f"* Running on local URL:  http://{host}:{self.config.port}", flush=True)


def _allow_open_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
