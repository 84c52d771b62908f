"""The demo, here and as a Space: python app.py; CXR_MODEL names a folder or a Hub id (org/name@revision)."""

import os
from pathlib import Path

from transformers import pipeline

from demo.launching import launch

MODEL = os.environ.get("CXR_MODEL") or str(Path(__file__).resolve().parent)


def main() -> None:
    # A folder may hold an @; what is no folder is a Hub id, and the revision it is pinned to.
    name, _, revision = (MODEL, "", "") if Path(MODEL).is_dir() else MODEL.partition("@")
    launch(pipeline("chest-xray-findings", model=name, revision=revision or None, trust_remote_code=True))


if __name__ == "__main__":
    main()
