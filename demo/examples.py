"""The demo's examples: synthetic radiographs, and the findings drawn into each."""

import base64
import hashlib
import io
import json
from functools import cache
from pathlib import Path

from PIL import Image

from patient_cxrfpn import PatientValues

FOLDER = Path(__file__).with_name("examples")


class Example(PatientValues):
    """A synthetic radiograph: its file and sha256, its title, its patient, and the findings drawn into it."""

    file: str
    title: str
    findings: list[str]
    sha256: str


@cache
def load_examples() -> list[Example]:
    """Return examples.json."""
    return json.loads((FOLDER / "examples.json").read_text())


def drawn_findings(data: bytes) -> list[str] | None:
    """Return the findings drawn into an example, which is known by its bytes; None for any other file."""
    digest = hashlib.sha256(data).hexdigest()
    return next((example["findings"] for example in load_examples() if example["sha256"] == digest), None)


@cache
def thumbnails(side: int = 112) -> list[dict[str, str]]:
    """Return the title of each example and a small picture of it, as a data URL."""
    shown = []
    for example in load_examples():
        file = io.BytesIO()
        with Image.open(FOLDER / example["file"]) as image:
            image.resize((side, side)).save(file, "JPEG", quality=85)
        picture = base64.b64encode(file.getvalue()).decode()
        shown.append({"title": example["title"], "thumbnail": f"data:image/jpeg;base64,{picture}"})
    return shown
