"""Draw the examples of the demo: python -m tools.make_examples"""

import hashlib
import io
import json

import numpy as np
from PIL import Image

from demo.examples import FOLDER

SIDE = 288
# Title, age, sex, view position, findings, and the seed of everything else about the phantom.
EXAMPLES = (
    ("No finding", 34, "F", "PA", (), 1),
    ("Cardiomegaly and effusion", 71, "M", "AP", ("Cardiomegaly", "Effusion"), 2),
    ("Pneumothorax", 23, "M", "PA", ("Pneumothorax",), 3),
    ("Mass", 63, "F", "PA", ("Mass",), 4),
    ("Edema", 58, "M", "AP", ("Edema", "Cardiomegaly"), 5),
    ("Consolidation", 45, "F", "AP", ("Consolidation",), 6),
)


def main() -> None:
    """Run the command."""
    from cxrfpn.data.phantom import draw_phantom  # only where examples are made

    FOLDER.mkdir(exist_ok=True)
    listed = []
    for title, age, sex, view_position, findings, seed in EXAMPLES:
        pixels, _ = draw_phantom(np.random.default_rng(seed), age, sex, view_position, findings, side=SIDE)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", optimize=True)
        name = f"phantom-{title.lower().replace(' ', '-')}.png"
        (FOLDER / name).write_bytes(file.getvalue())
        listed.append(
            {
                "file": name,
                "title": title,
                "age": age,
                "sex": sex,
                "view_position": view_position,
                "findings": list(findings),
                "sha256": hashlib.sha256(file.getvalue()).hexdigest(),
            }
        )
    (FOLDER / "examples.json").write_text(json.dumps(listed, indent=1) + "\n")
    print(f"written: {FOLDER}")


if __name__ == "__main__":
    main()
