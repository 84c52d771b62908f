"""The demo, here and as a Space: python app.py; CXR_MODEL names a folder or a Hub id (org/name@revision)."""

import argparse
import os
import sys
from pathlib import Path

# Set before the libraries read them: gradio and the Hub's client must not report that the demo is used.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")

MODEL = os.environ.get("CXR_MODEL") or str(Path(__file__).resolve().parent)


def main() -> None:
    """Run the command."""
    description = "Open the demo in a browser. HOST and PORT say where it listens, CXR_MODEL which model it shows."
    argparse.ArgumentParser(description=description).parse_args()
    # Only now, since --help and wrong usage need none of it.
    from demo.launching import free_address, launch
    from engine_cxrfpn import load_engine
    from pixels_cxrfpn import printable
    from thresholds_cxrfpn import PackageError

    try:
        host, port = free_address()  # before the model, which takes seconds
        launch(load_engine(MODEL), host, port)
    except (PackageError, OSError) as error:
        print(printable(f"app: {error}"), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
