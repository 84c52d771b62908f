"""The page: one image, many images, the model, and how to call it from a program."""

import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

import gradio as gr
from gradio.data_classes import FileData, ListFiles
from gradio.utils import get_upload_folder

from demo.api import add_endpoints
from demo.batch import read_rows
from demo.examples import FOLDER, load_examples, thumbnails
from demo.figures import Figures, describe_gate
from demo.nih import UnreachableError, draw_radiograph, is_reachable
from demo.points import describe_points
from demo.queueing import FairQueue
from demo.reading import UNKNOWN, Reader, patient_from_form, patient_in, patient_to_form
from demo.sweeping import LIVE
from demo.texts import CAUTION, HEADER, HEADERS_ONLY, NOTICE, model_name
from demo.uploads import MAX_FILES, Batch, read_upload
from engine_cxrfpn import Engine
from patient_cxrfpn import SEXES, VIEW_POSITIONS

T = TypeVar("T")
Payload: TypeAlias = FileData | ListFiles | None
HERE = Path(__file__).parent
KINDS = "PNG, JPEG, WebP, TIFF, BMP or DICOM"
# One reading at a time, and one batch beside it: more only makes all of them slower on the two cores of a free Space.
LIMITS = {kind: {"concurrency_id": kind, "concurrency_limit": 1} for kind in ("reading", "batch")}

PRIVACY = f"""
<footer class="foot">Uploads are deleted {LIVE // 60} minutes after they came; nothing that names a patient
in a DICOM header is shown or kept. {CAUTION}</footer>"""


def build(engine: Engine) -> gr.Blocks:
    """Return the page around one model.

    Args:
        engine: the model, as `load_engine` gives it.
    """
    reader, figures = Reader(engine), Figures(engine)
    points = describe_points(engine.thresholds, figures)
    shared = {"points": points, "default_point": engine.thresholds.default}
    with gr.Blocks(title="Chest radiograph findings", analytics_enabled=False) as page:
        gr.HTML(HEADER, padding=False)
        with gr.Tabs():
            with gr.Tab("One image", id="one"):
                _one_image(reader, _of_one_image(engine, figures) | shared)
            with gr.Tab("Many images", id="many"):
                _many_images(reader, shared)
            with gr.Tab("The model", id="model") as tab:
                card = gr.HTML("", padding=False)
                text = f"{figures.page()}<p class='hint'>{describe_gate()}</p>"
                # Sent when the tab is opened: its pictures would make every visit slower.
                tab.select(lambda: text, None, card, show_progress="hidden", **_PRIVATE)
            with gr.Tab("For engineers", id="engineers"):
                gr.Markdown((HERE / "calls.md").read_text(encoding="utf-8"), elem_classes="prose-narrow")
        gr.HTML(PRIVACY, padding=False)
        add_endpoints(reader, LIMITS)
    _take_uploads_only(page)
    page.queue(api_open=False)
    page._queue = FairQueue(page)
    return page


def _of_one_image(engine: Engine, figures: Figures) -> dict[str, object]:
    guarantee = engine.thresholds.conformal.get("guarantee")
    return {"model": model_name(engine.source), "measured": figures.measured_on(), "guarantee": guarantee}


def _one_image(reader: Reader, props: Mapping[str, object]) -> None:
    with gr.Row(elem_classes="inputs"):
        file = gr.File(label=f"Radiograph ({KINDS})", height=132, scale=5, min_width=280, elem_id="upload")
        with gr.Column(scale=5, min_width=280, elem_classes="patient-fields"):
            age, sex, view_position = _patient_fields()
        button = gr.Button("Read", variant="primary", scale=1, min_width=120, elem_id="read")
    gallery = gr.HTML(
        thumbnails(),
        html_template="<p class='gallery-title'>Or try a synthetic one</p><div class='gallery-root'></div>",
        js_on_load=(HERE / "gallery.js").read_text(encoding="utf-8"),
        elem_id="gallery",
    )
    real = gr.Button("A radiograph from the NIH test set", size="sm", visible=is_reachable(), elem_id="real")
    shown = gr.HTML(
        None,
        html_template="<div class='reader-root'></div>",
        js_on_load=_script("reader.js"),
        elem_id="reader",
        notice=NOTICE,
        **props,
    )

    def read(path: str | None, *patient: str) -> dict[str, object] | None:
        if path is None:
            return None
        try:
            known, upload = patient_from_form(*patient), read_upload(path)
            return reader.show(reader.read(upload, known, maps=True), upload)
        except ValueError as error:  # shown in place of the reading, where the visitor looks
            return {"error": str(error)}

    def fill(path: str, *fields: str) -> tuple[str, ...]:
        try:
            patient = patient_in(read_upload(path))
            return fields if patient is None else patient_to_form(patient)
        except ValueError:  # the reading that follows says what is wrong
            return fields

    def choose(event: gr.EventData) -> tuple[str, ...]:
        example = load_examples()[int(event.example)]
        return str(FOLDER / example["file"]), *patient_to_form(example)

    def fetch() -> tuple[str | None, ...]:
        try:
            upload, patient = draw_radiograph()
        except UnreachableError as error:
            raise gr.Error(str(error), print_exception=False) from None
        path = Path(tempfile.mkdtemp(dir=get_upload_folder())) / upload.name
        path.write_bytes(upload.data)
        return str(path), *patient_to_form(patient)

    fields = [age, sex, view_position]
    reading = {"fn": read, "inputs": [file, *fields], "outputs": shown, **LIMITS["reading"], **_PRIVATE}
    file.upload(fill, [file, *fields], fields, show_progress="hidden", **_PRIVATE).then(**reading)
    button.click(**reading)
    gallery.select(choose, None, [file, *fields], show_progress="hidden", **_PRIVATE).then(**reading)
    real.click(fetch, None, [file, *fields], show_progress="hidden", **_PRIVATE).success(**reading)
    # With the file goes its patient: the next one must not inherit an age.
    file.clear(lambda: ("", UNKNOWN, UNKNOWN, None), None, [*fields, shown], show_progress="hidden", **_PRIVATE)


def _many_images(reader: Reader, props: Mapping[str, object]) -> None:
    with gr.Row(elem_classes="inputs"):
        files = gr.File(
            label=f"Up to {MAX_FILES} radiographs, or a zip of them",
            file_count="multiple",
            height=132,
            scale=5,
            min_width=280,
            elem_id="uploads",
        )
        with gr.Column(scale=5, min_width=280):
            gr.HTML(f"<p class='hint'>{HEADERS_ONLY}</p>")
        button = gr.Button("Read all", variant="primary", scale=1, min_width=120, elem_id="read-all")
    table = gr.HTML(
        None,
        html_template="<div class='batch-root'></div>",
        js_on_load=_script("batch.js"),
        elem_id="batch",
        findings=list(reader.engine.findings),
        **props,
    )

    def read_all(paths: list[str] | None) -> Iterator[dict[str, object] | None]:
        if not paths:
            yield None
            return
        try:
            batch, rows = Batch(paths), []
            for row in read_rows(reader, batch):
                shown: dict[str, object] = {key: value for key, value in row.items() if key != "findings"}
                if findings := row.get("findings"):
                    # Not rounded: the page compares them with thresholds, some of which are scores themselves.
                    shown["scores"] = {finding["label"]: finding["score"] for finding in findings}
                    shown["any_finding"], shown["fit"] = findings.any_finding, findings.fit
                rows.append(shown)
                # Every answer carries the whole table, so they thin out as it grows.
                if len(rows) == len(batch) or len(rows) % max(1, len(batch) // 20) == 0:
                    yield {"rows": rows, "total": len(batch)}
        except ValueError as error:
            yield {"error": str(error)}

    button.click(read_all, files, table, show_progress="hidden", **LIMITS["batch"], **_PRIVATE)
    files.clear(lambda: None, None, table, show_progress="hidden", **_PRIVATE)


# Events of the page itself are no part of the API.
_PRIVATE = {"api_visibility": "private"}


def _patient_fields() -> tuple[gr.Textbox, gr.Radio, gr.Radio]:
    # No gr.Number: an empty one says 0, which is a newborn, until somebody has touched it.
    age = gr.Textbox(label="Age (years)", placeholder=UNKNOWN, max_length=8, elem_id="age", min_width=90)
    sex = gr.Radio([UNKNOWN, *reversed(SEXES)], value=UNKNOWN, label="Sex", elem_id="sex")
    view_position = gr.Radio([UNKNOWN, *VIEW_POSITIONS], value=UNKNOWN, label="View position", elem_id="view")
    return age, sex, view_position


def _script(name: str) -> str:
    return (HERE / "drawing.js").read_text(encoding="utf-8") + (HERE / name).read_text(encoding="utf-8")


def _take_uploads_only(page: gr.Blocks) -> None:
    """Refuse files that are named by an address. gradio would fetch them, or hand the address on as a path."""

    def uploads_only(move: Callable[[str], Awaitable[T]]) -> Callable[[str], Awaitable[T]]:
        async def move_upload(path: str) -> T:
            _check_upload(path)
            return await move(path)

        return move_upload

    def no_streams(
        preprocess: Callable[[Payload], T],
    ) -> Callable[[Payload], T]:
        def preprocess_uploads(payload: Payload) -> T:
            for file in getattr(payload, "root", [payload]):
                if file is not None:
                    _check_upload(file.path, file.is_stream)
            return preprocess(payload)

        return preprocess_uploads

    for block in page.blocks.values():
        block.async_move_resource_to_block_cache = uploads_only(block.async_move_resource_to_block_cache)
        if isinstance(block, gr.File):  # streams are not moved, so that the check above never sees them
            block.preprocess = no_streams(block.preprocess)


def _check_upload(path: str, is_stream: bool = False) -> None:
    if is_stream or "://" in str(path):
        raise gr.Error("Addresses are not fetched here; upload the file itself.", print_exception=False)
