"""The demo: a radiograph and its patient in, the 14 findings and one finding map out."""

import os
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image
from transformers import pipeline

from overlay_cxrfpn import overlay

MODEL = os.environ.get("CXR_MODEL") or str(Path(__file__).resolve().parent)
UNKNOWN = "unknown"
HEADERS = ["Finding", "Score", "Threshold", "Call"]
NOTICE = (
    "**For research and teaching. Not for clinical use.** A score is no probability: compare it with its finding's "
    "threshold."
)
MAX_UPLOAD = "64mb"


def build(pipe: Any) -> gr.Blocks:
    """The page around one pipeline."""

    def predict(file: str | None, age: str, sex: str, view_position: str):
        if file is None:
            raise gr.Error("Choose a radiograph first (PNG, JPEG, TIFF or DICOM).")
        patient = {
            "age": age.strip() or None,
            "sex": None if sex == UNKNOWN else sex,
            "view_position": None if view_position == UNKNOWN else view_position,
        }
        try:
            # Uploads keep the name they had; the folder they were put in is nobody's business.
            radiograph = pipe.image_processor.read(Path(file).read_bytes(), name=Path(file).name)
            findings = pipe({"image": radiograph, **patient}, maps=True)
        except ValueError as error:
            raise gr.Error(str(error)) from None
        maps = {finding["label"]: finding["map"] for finding in findings}
        first = findings[0]["label"]
        table = [
            [each["label"], f"{each['score']:.3f}", f"{each['threshold']:.2f}", "positive" if each["positive"] else ""]
            for each in sorted(findings, key=lambda each: not each["positive"])
        ]
        chooser = gr.Dropdown(choices=list(maps), value=first, interactive=True)
        return table, chooser, draw(radiograph.pixels, maps[first]), (radiograph.pixels, maps)

    def draw(pixels: np.ndarray, finding_map: np.ndarray) -> Image.Image:
        return overlay(pixels, pipe.image_processor.place_map(finding_map, *pixels.shape))

    def choose(finding: str, seen: tuple[np.ndarray, dict[str, np.ndarray]] | None):
        return None if seen is None else draw(seen[0], seen[1][finding])

    with gr.Blocks(title="Chest radiograph findings") as page:
        gr.Markdown("# Findings on a chest radiograph\n" + NOTICE)
        seen = gr.State()
        with gr.Row():
            with gr.Column(scale=2):
                file = gr.File(label="Radiograph (PNG, JPEG, WebP, TIFF, BMP or DICOM)", type="filepath")
                with gr.Row():
                    # No gr.Number: an empty one says 0, which is a newborn, until somebody has touched it.
                    age = gr.Textbox(label="Age in years", placeholder=UNKNOWN, max_length=6)
                    sex = gr.Radio([UNKNOWN, "F", "M"], value=UNKNOWN, label="Sex")
                    view_position = gr.Radio([UNKNOWN, "PA", "AP"], value=UNKNOWN, label="View position")
                button = gr.Button("Find", variant="primary")
                table = gr.Dataframe(headers=HEADERS, label="Findings, positive calls first", interactive=False)
            with gr.Column(scale=3):
                finding = gr.Dropdown(label="Show where this finding was seen", choices=[])
                picture = gr.Image(label="Finding map over the radiograph", format="png")
        button.click(predict, [file, age, sex, view_position], [table, finding, picture, seen], api_name="predict")
        finding.input(choose, [finding, seen], picture, api_visibility="private")
    return page


def main() -> None:
    pipe = pipeline("chest-xray-findings", model=MODEL, trust_remote_code=True)
    build(pipe).queue(max_size=64).launch(
        server_name=os.environ.get("HOST", "127.0.0.1"),
        server_port=int(os.environ.get("PORT", "7860")),
        max_file_size=MAX_UPLOAD,
        theme=gr.themes.Soft(primary_hue="teal"),
    )


if __name__ == "__main__":
    main()
