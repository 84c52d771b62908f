"""How the page looks: colours and fonts for gradio. page.css holds the same as variables."""

import gradio as gr

# Fonts of the system only: gradio's own themes make the browser fetch some.
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    """Return one accent, a deep teal, and greys that lean towards it."""
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
    # page.css tells light from dark; gradio wants a value for each.
    both = surfaces | {f"{name}_dark": value for name, value in surfaces.items()}
    return gr.themes.Base(primary_hue=accent, neutral_hue=grey, radius_size="md", font=FONT, font_mono=MONO).set(**both)
