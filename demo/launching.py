"""Start the demo: where it listens, and the page around a pipeline until the process is stopped."""

import contextlib
import os
import signal
import socket
import sys

from demo.page import build
from demo.serving import serve
from demo.sweeping import start_sweeping, upload_folder
from engine_cxrfpn import Engine


class AddressError(OSError):
    """Raised when nothing can listen where HOST and PORT say; the message is one line."""


def free_address() -> tuple[str, int]:
    """Return where to listen, as HOST and PORT say.

    Raises:
        AddressError: HOST is no address of this machine, PORT is no port, or something listens there already.
    """
    host = os.environ.get("HOST") or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"  # a Space sets the second
    port = os.environ.get("PORT") or "7860"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise AddressError(f"PORT={port} is no port; set it to a number from 1 to 65535")
    _try_to_bind(host, int(port))
    return host, int(port)


def _try_to_bind(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AddressError(f"cannot listen on {host}, port {port} ({reason}); set HOST or PORT to another") from None


def launch(engine: Engine, host: str, port: int) -> None:
    """Serve the page around a model until the process is stopped; its uploads go with it."""
    # A service is stopped by SIGTERM, which by itself ends a process on the spot and leaves its uploads behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with contextlib.suppress(KeyboardInterrupt), upload_folder() as folder:
        start_sweeping(folder)
        serve(build(engine), host, port)
