"""What the demo's page and the page in the browser both say."""

from pathlib import Path

# The name of the model beside the demo: a Space puts both into a folder of another name.
PROJECT = "cxr-densenet-fpn"
NOTICE = "For research and teaching. Not for clinical use."
HEADER = f"""
<header class="top">
  <div><h1>Chest radiograph findings</h1>
  <p>Fourteen findings from one frontal radiograph, and what is known of the patient.</p></div>
  <p class="notice" role="note">{NOTICE}</p>
</header>"""
CAUTION = "Labels of the training data were mined from reports and err; a score is no diagnosis."
HEADERS_ONLY = (
    "Age, sex and view are read from DICOM headers; for other files they count as unknown. "
    "A file that cannot be read is a row that says why."
)


def model_name(source: str) -> str:
    """Return how the page names an engine's model: a Hub id, or the name of its folder without the path."""
    path = Path(source)
    path = path.parent if path.suffix == ".onnx" else path
    if not path.exists():
        return str(path)
    return PROJECT if path.resolve() == Path(__file__).resolve().parents[1] else path.resolve().name
