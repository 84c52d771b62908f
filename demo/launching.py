"""The page as it is served: how it looks, what it takes, where it listens."""

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import gradio as gr

from demo.page import build
from demo.sweeping import start_sweeping, upload_folder
from demo.uploads import MAX_FILE_BYTES

HERE = Path(__file__).parent
# Of the system only: gradio's own themes would have the browser fetch fonts.
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    """One accent, a deep teal, and greys that lean towards it. page.css holds the same as variables."""
    accent = gr.themes.Color(
        "#eef7f8", "#d8ecef", "#b3d9df", "#85c1ca", "#52a4b1", "#2a8796", "#0b6b7d", "#095867", "#084753", "#073a44",
        "#05262d",
    )  # fmt: skip
    grey = gr.themes.Color(
        "#f6f8f9", "#edf1f3", "#dde5e8", "#c5d0d5", "#93a5ad", "#6b7d85", "#52646c", "#3a4a51", "#223036", "#151f23",
        "#0e1518",
    )  # fmt: skip
    surfaces = {
        "body_background_fill": "var(--paper)",
        "block_background_fill": "var(--card)",
        "block_label_background_fill": "var(--card)",
        "block_border_color": "var(--line)",
        "block_label_text_color": "var(--quiet)",
        "block_title_text_color": "var(--quiet)",
        "link_text_color": "var(--accent)",
        "link_text_color_hover": "var(--accent)",
        "button_primary_background_fill": "var(--accent)",
        "button_primary_background_fill_hover": "var(--accent-strong)",
        "button_primary_text_color": "var(--card)",
    }
    # page.css tells light from dark; gradio asks for each of them apart.
    both = surfaces | {f"{name}_dark": value for name, value in surfaces.items()}
    return gr.themes.Base(primary_hue=accent, neutral_hue=grey, radius_size="md", font=FONT, font_mono=MONO).set(**both)


class AddressError(OSError):
    """Nothing can listen where HOST and PORT say; the message is one line."""


def free_address() -> tuple[str, int]:
    """Where to listen, as HOST and PORT say; tried here, as gradio's own message on a taken port misleads.

    Raises:
        AddressError: HOST is no address of this machine, PORT is no port, or something listens there already.
    """
    host = os.environ.get("HOST") or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"  # a Space sets the second
    told = os.environ.get("PORT") or "7860"
    if not (told.isascii() and told.isdigit() and 0 < int(told) < 2**16):
        raise AddressError(f"PORT={told} is no port; set it to a number from 1 to 65535")
    for place in (host, "127.0.0.1"):  # gradio wants the port on loopback too, wherever it listens
        _try_to_bind(place, int(told))
    return host, int(told)


def _try_to_bind(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AddressError(f"cannot listen on {host}, port {port} ({reason}); set HOST or PORT to another") from None


def launch(pipe: Any, host: str, port: int) -> None:
    """Serve the page around a pipeline until the process is stopped; its uploads go with it."""
    # A service is stopped by SIGTERM, which by itself ends a process on the spot and leaves its uploads behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    # The server closes first, or an upload could still come into the folder while it is deleted.
    with upload_folder() as folder, contextlib.closing(build(pipe)) as page:
        start_sweeping(folder)
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=MAX_FILE_BYTES,
            css_paths=HERE / "page.css",
            theme=theme(),
            footer_links=[],
            run_history=False,  # else gradio may keep readings, in the browser or in a bucket
            ssr_mode=False,
            share=False,
        )
