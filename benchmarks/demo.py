"""What a visitor of the demo waits for: from the bytes of an upload to all that the page shows."""

import tempfile
from pathlib import Path

from benchmarks.inference import MODEL, write_drawing
from benchmarks.ratio import Row, time_ratio
from demo.reading import Reader
from demo.uploads import read_upload
from engine_cxrfpn import load_engine
from patient_cxrfpn import PatientValues


def measure() -> list[Row]:
    """Time the demo on a PNG of 1024 x 1024 pixels: checks, gate, maps and pictures beside the engine alone."""
    engine = load_engine(MODEL)
    reader = Reader(engine)
    patient: PatientValues = {"age": 63, "sex": "F", "view_position": "PA"}
    with tempfile.TemporaryDirectory() as folder:
        path = write_drawing(Path(folder) / "drawing.png", 0)

        def shown() -> None:
            upload = read_upload(path)
            reader.show(reader.read(upload, patient, maps=True), upload)

        ratio, ours, theirs = time_ratio(shown, lambda: engine({"image": path, **patient}, maps=True), rounds=40)
    what = "one upload, from its bytes to what the page shows / the engine alone, with maps"
    return [Row(what, ratio, 1.2, f"({1000 * ours:.0f} ms / {1000 * theirs:.0f} ms)")]
