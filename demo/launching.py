"""The page as it is served: how it looks, what it takes, where it listens."""

import os
from pathlib import Path
from typing import Any

import gradio as gr

from demo.page import build
from demo.sweeping import own_upload_folder, start_sweeping
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


def launch(pipe: Any) -> None:
    """Serve the page around a pipeline until it is stopped; HOST and PORT say where."""
    start_sweeping(own_upload_folder())
    build(pipe).launch(
        server_name=os.environ.get("HOST"),  # else GRADIO_SERVER_NAME, as a Space sets it, else loopback
        server_port=int(os.environ.get("PORT", "7860")),
        max_file_size=MAX_FILE_BYTES,
        css_paths=HERE / "page.css",
        theme=theme(),
        footer_links=[],
        run_history=False,  # else gradio may keep readings, in the browser or in a bucket
        ssr_mode=False,
        share=False,
    )
