"""Ports for the servers that tests start."""

import socket


def free_port() -> int:
    """A port of loopback at which nothing listened a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
