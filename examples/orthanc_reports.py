"""Send each new chest film of an Orthanc server through the model, and store its report and capture there.

    orthanc_reports.py http://127.0.0.1:8042

A user and a password come from the environment: ORTHANC_USER and ORTHANC_PASSWORD. Not for clinical use.
"""

import argparse
import base64
import io
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from cxrfpn.prediction.dicom_out import model_version, read_header, report_film
from cxrfpn.prediction.inputs import Input
from cxrfpn.prediction.predicting import predict
from engine_cxrfpn import Engine, load_engine

ROOT = Path(__file__).resolve().parents[1]
# Of radiographs. The outputs are SR and OT, so that they do not come back in.
MODALITIES = ("CR", "DX", "DR")
BODY_PARTS = ("", "CHEST", "THORAX")
POLL_SECONDS = 2.0


class Orthanc:
    """The few calls of Orthanc's REST API that this needs."""

    def __init__(self, url: str) -> None:
        self.url, self.headers = url.rstrip("/"), {}
        if user := os.environ.get("ORTHANC_USER"):
            secret = f"{user}:{os.environ.get('ORTHANC_PASSWORD', '')}".encode()
            self.headers["Authorization"] = f"Basic {base64.b64encode(secret).decode()}"

    def ask(self, path: str, content: bytes | None = None) -> bytes:
        """GET a path, or POST content to it."""
        request = urllib.request.Request(self.url + path, content, self.headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def changes(self, since: int) -> dict:
        """Return up to 100 changes after a sequence number."""
        return json.loads(self.ask(f"/changes?since={since}&limit=100"))

    def last_change(self) -> int:
        """Return the sequence number of the last change."""
        return json.loads(self.ask("/changes?last"))["Last"]


def is_chest_film(tags: dict[str, str]) -> bool:
    """Whether a header is one of a chest radiograph; a body part that is not given may be a chest."""
    return tags.get("Modality") in MODALITIES and str(tags.get("BodyPartExamined", "")).upper() in BODY_PARTS


def report_instance(orthanc: Orthanc, engine: Engine, instance: str) -> str:
    """Store the report and the capture of one film, and return a line that says what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.dcm"
        path.write_bytes(orthanc.ask(f"/instances/{instance}/file"))
        (prediction,) = predict(engine, [Input(path)], maps=True)
        film = read_header(path)
    if prediction.error is not None or film is None:
        return f"{instance}: {prediction.error or 'no DICOM header'}"
    try:
        made = report_film(film, prediction, engine, model_version(engine))
    except Exception as error:  # a header may hold anything; the next film waits
        return f"{instance}: no report can be linked to its header ({error})"
    for dataset in made.values():
        content = io.BytesIO()
        dataset.save_as(content, enforce_file_format=True)
        orthanc.ask("/instances", content.getvalue())
    return f"{instance}: report stored"


def watch(orthanc: Orthanc, engine: Engine, since: int) -> int:
    """Report every chest film among the changes after `since`; return the last one seen."""
    while True:
        changes = orthanc.changes(since)
        for change in changes["Changes"]:
            if change["ChangeType"] == "NewInstance":
                try:
                    tags = json.loads(orthanc.ask(f"/instances/{change['ID']}/simplified-tags"))
                    if is_chest_film(tags):
                        print(report_instance(orthanc, engine, change["ID"]), flush=True)
                except urllib.error.HTTPError as error:
                    print(f"{change['ID']}: Orthanc answers {error.code} (deleted meanwhile?)", flush=True)
        since = changes["Last"]
        if changes["Done"]:
            return since


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Report each new chest film of an Orthanc server.")
    parser.add_argument("url", help="of Orthanc's REST API, such as http://127.0.0.1:8042")
    parser.add_argument("--model", default=str(ROOT), help="a folder or a Hub id (this repository's model)")
    parser.add_argument("--since", type=int, help="start after this change: 0 for every film that is there (now)")
    arguments = parser.parse_args()
    orthanc, engine = Orthanc(arguments.url), load_engine(arguments.model)
    since = orthanc.last_change() if arguments.since is None else arguments.since
    print(f"watching {arguments.url} after change {since}", flush=True)
    while True:
        try:
            since = watch(orthanc, engine, since)
        except OSError as error:  # Orthanc is restarting, say; nothing is lost, since changes are numbered
            print(f"{arguments.url}: {error}; trying again", flush=True)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
