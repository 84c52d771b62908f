"""Draw radiographs from the NIH test set, with their labels, through the Hub's viewer of data sets."""

import os
import random
import threading
from collections import OrderedDict
from hashlib import sha256

import httpx
from huggingface_hub import is_offline_mode

from demo.uploads import MAX_FILE_BYTES, Upload
from errors_cxrfpn import CxrFpnError
from patient_cxrfpn import SEXES, VIEW_POSITIONS, PatientValues

DATASET, SPLIT, ROWS = "timm/nih-chest-xray-14", "test", 25_596
SERVER = "https://datasets-server.huggingface.co"
PATIENCE = 8.0  # seconds
# Labels of the radiographs drawn last, by the sha256 of their bytes: they are shown beside the reading.
_KEPT = 256
_labels: OrderedDict[str, list[str]] = OrderedDict()
_lock = threading.Lock()


class UnreachableError(CxrFpnError):
    """Raised when the Hub does not answer, or not with a radiograph; the message is one line."""


def is_reachable() -> bool:
    """Return whether such radiographs can be offered; asked once, at the start."""
    if is_offline_mode():  # HF_HUB_OFFLINE, as the Hub's client reads it
        return False
    try:
        address = f"{_server()}/is-valid?dataset={DATASET}"
        return httpx.get(address, timeout=PATIENCE / 2).status_code == 200
    except httpx.HTTPError:
        return False


def draw_radiograph() -> tuple[Upload, PatientValues]:
    """Draw a radiograph of the official test set at random; return it and its patient, under the pipeline's keys.

    Raises:
        UnreachableError: the Hub does not answer, or not with a radiograph, or must not be asked.
    """
    if is_offline_mode():  # the page has no button then, but a program may call this without it
        raise UnreachableError("this demo asks nothing of the network; try a synthetic one")
    query = {"dataset": DATASET, "config": "default", "split": SPLIT, "offset": random.randrange(ROWS), "length": 1}
    try:
        with httpx.Client(timeout=PATIENCE, follow_redirects=True) as client:
            answer = client.get(f"{_server()}/rows", params=query).raise_for_status().json()
            row = answer["rows"][0]["row"]
            data = _download(client, row["image"]["src"])
        labelled = [name for name in row["label_names"] if name != "No Finding"]
        patient: PatientValues = {
            "age": row["patient_age"],
            "sex": row["patient_sex"] if row["patient_sex"] in SEXES else None,
            "view_position": row["view_position"] if row["view_position"] in VIEW_POSITIONS else None,
        }
        name = f"nih-{row['image_id']}.jpg"
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError):
        raise UnreachableError("the Hub cannot be reached right now; try a synthetic one") from None
    _remember(data, labelled)
    return Upload(name, data), patient


def label_of(data: bytes) -> list[str] | None:
    """Return the findings that NIH's label names; None for a radiograph that was not drawn here."""
    return _labels.get(sha256(data).hexdigest())


def _download(client: httpx.Client, address: str) -> bytes:
    """Fetch a file, but no more of it than an upload may have."""
    data = bytearray()
    with client.stream("GET", address) as answer:
        for piece in answer.raise_for_status().iter_bytes():
            data += piece
            if len(data) > MAX_FILE_BYTES:
                raise ValueError
    return bytes(data)


def _server() -> str:
    return os.environ.get("CXR_DATASETS_SERVER", SERVER)


def _remember(data: bytes, findings: list[str]) -> None:
    with _lock:
        _labels[sha256(data).hexdigest()] = findings
        while len(_labels) > _KEPT:
            _labels.popitem(last=False)
