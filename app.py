"""The demo, here and as a Space: python app.py; CXR_MODEL names a folder or a Hub id (org/name@revision)."""

import os
import sys
from pathlib import Path

# Set before the libraries read them: gradio and the Hub's client must not report that the demo is used.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")

from demo.launching import free_address, launch
from loading_cxrfpn import load_pipeline
from thresholds_cxrfpn import PackageError

MODEL = os.environ.get("CXR_MODEL") or str(Path(__file__).resolve().parent)


def main() -> None:
    try:
        host, port = free_address()  # before the model, which takes seconds
        launch(load_pipeline(MODEL), host, port)
    except (PackageError, OSError) as error:
        print(f"app: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
