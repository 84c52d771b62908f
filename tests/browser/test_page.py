"""The page in the browser, as a plain web server hands it out, used by a real browser."""

import csv
import http.server
import json
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.examples import FOLDER, load_examples
from exported_cxrfpn import OnnxRuntimeEngine
from gate_cxrfpn import NOTE as NOT_A_CHEST
from tests.browser.conftest import Site
from tests.conftest import ROOT
from tests.hardening.corpus import drawing, encoded, sound_pictures
from tests.hardening.dicoms import make_dicom, sound_dicoms, stored

pytestmark = pytest.mark.slow
EXAMPLE = FOLDER / load_examples()[1]["file"]
# The most by which a score may differ from Python's.
LARGEST_DIFFERENCE = 2e-4


def films() -> dict[str, bytes]:
    """40 films of the corpus, of every kind that the page reads, and the examples."""
    pictures = {
        name: data for name, data in sound_pictures().items()
        if name.endswith((".png", ".jpg", ".webp", ".gz")) and not name.startswith(("cmyk", "turned_"))
    }  # fmt: skip
    dicoms = {f"{name}.dcm": data for name, data in sound_dicoms(drawing()).items()}
    chosen = dict(list((pictures | dicoms).items())[:40])
    return chosen | {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.png"))}


def read_many(page, paths: list[Path]) -> list[dict[str, str]]:
    """Read files as a table, and return the rows of its CSV."""
    page.get_by_role("tab", name="Many images").click()
    page.set_input_files("#uploads input[type=file]", paths)
    page.click("#read-all")
    page.wait_for_selector(".save")
    with page.expect_download() as waiting:
        page.click(".save")
    return list(csv.DictReader(Path(waiting.value.path()).read_text().splitlines()))


def assert_as_in_python(rows: list[dict[str, str]], files: dict[str, bytes], site: Site) -> None:
    engine = OnnxRuntimeEngine(site.folder / "model.onnx")
    assert [row["image"] for row in rows] == list(files)
    for row, (name, data) in zip(rows, files.items(), strict=True):
        answer = engine({"image": engine.read(data, name)})
        for finding in answer:
            assert abs(float(row[finding["label"]]) - finding["score"]) <= LARGEST_DIFFERENCE, name
        called = {finding["label"] for finding in answer if finding["positive"]}
        # One whose score lies that close to its threshold may be called either way.
        close = {each["label"] for each in answer if abs(each["score"] - each["threshold"]) <= LARGEST_DIFFERENCE}
        assert set(filter(None, row["positive"].split("|"))) ^ called <= close, name
        assert float(row["fit"]) == pytest.approx(answer.fit, abs=1e-3), name
        # What the gate notes has a column of its own, as in the demo.
        assert row["looks_like_a_chest_radiograph"] == ("false" if NOT_A_CHEST in answer.notes else "true"), name
        assert row["notes"] == " ".join(note for note in answer.notes if note != NOT_A_CHEST), name
        any_finding = answer.any_finding and answer.any_finding["score"]
        assert (float(row["any_finding"]) if row["any_finding"] else None) == pytest.approx(any_finding, abs=2e-3), name


def test_40_films_and_the_examples_get_the_scores_calls_and_notes_of_python(page, site, tmp_path):
    files = films()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert_as_in_python(read_many(page, [tmp_path / name for name in files]), files, site)


def test_the_released_model_gets_the_scores_of_python(browser, make_site, tmp_path):
    """With real films too, where they are."""
    site = make_site(ROOT)
    paths = sorted(FOLDER.glob("*.png")) + sorted((ROOT.parent / "shared/nih-mini/originals").glob("*.png"))[:4]
    page = browser.new_page(accept_downloads=True)
    page.set_default_timeout(300_000)
    page.goto(site.address)
    rows = read_many(page, paths)
    page.close()
    assert_as_in_python(rows, {path.name: path.read_bytes() for path in paths}, site)


def test_a_film_is_read_with_its_patient_maps_and_downloads(page, site, tmp_path):
    path = tmp_path / "scan.dcm"
    told = {"PatientAge": "058Y", "PatientSex": "F", "ViewPosition": "LATERAL", "PatientName": "Doe^<b>Jo</b>"}
    path.write_bytes(stored(make_dicom(drawing(300, 260), 8, **told)))
    page.set_input_files("#upload input[type=file]", path)
    page.wait_for_selector(".reading")
    assert page.locator("#age input").input_value() == "58"
    assert "58 years · female · view unknown" in page.locator(".patient").inner_text()
    assert "lateral" in page.locator(".notes").inner_text() and "Doe" not in page.content()
    page.locator(".finding").nth(5).focus()
    page.keyboard.press("Enter")
    assert page.locator(".finding[aria-pressed=true]").count() == 1
    if page.locator(".layer").count():
        page.locator(".opacity input").fill("0.2")
        assert page.locator(".layer").evaluate("layer => layer.style.opacity") == "0.2"
    # The policy refuses no style.
    assert page.locator(".fill").first.evaluate("bar => bar.getBoundingClientRect().width") > 0
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download JSON").click()
    answer = json.loads(Path(waiting.value.path()).read_text())
    engine = OnnxRuntimeEngine(site.folder / "model.onnx")
    expected = engine({"image": engine.read(path.read_bytes(), path.name), "age": 58, "sex": "F"})
    for ours, theirs in zip(sorted(answer["findings"], key=lambda each: -each["score"]), expected, strict=True):
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=LARGEST_DIFFERENCE)
        assert ours["call"] == theirs["call"]
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download page").click()
    with Image.open(waiting.value.path()) as sheet:
        assert sheet.size == (1240, 1754) and np.asarray(sheet.convert("L")).std() > 20
    page.locator("#upload .clear").click()
    assert page.locator("#age input").input_value() == "" and page.locator(".reading").count() == 0


def test_examples_operating_points_and_bad_input(page, tmp_path):
    page.click(".example:nth-child(2)")
    page.wait_for_selector(".reading")
    assert "Drawn with Cardiomegaly, Effusion" in page.locator(".truth").inner_text()
    page.locator(".points label", has_text="Youden").click()
    page.locator("#age input").fill("414")
    page.click("#read")
    page.wait_for_selector(".refused")
    assert "from 0 to 120" in page.locator(".refused").inner_text()
    page.locator("#age input").fill("")
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    path.write_text("Dear colleague")
    page.set_input_files("#upload input[type=file]", path)
    page.get_by_text("not an image that can be read").wait_for()
    assert page.locator("img[src=x]").count() == 0


def test_a_zip_is_a_table_in_which_what_cannot_be_read_says_why(page, tmp_path):
    with zipfile.ZipFile(tmp_path / "films.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(EXAMPLE, "ward/=1+1.png")
        archive.writestr("ward/letter.png", "Dear colleague")
        archive.writestr("__MACOSX/ward/._letter.png", "hidden")
    (tmp_path / "broken.zip").write_bytes((tmp_path / "films.zip").read_bytes()[:-30])
    rows = read_many(page, [tmp_path / "films.zip", tmp_path / "broken.zip"])
    assert [row["image"] for row in rows] == ["'=1+1.png", "letter.png", "broken.zip"]
    assert "not an image" in rows[1]["error"] and "the zip is damaged" in rows[2]["error"]
    page.locator("th[data-column=Effusion] button").click()
    assert page.locator("th[data-column=Effusion]").get_attribute("aria-sort") == "descending"


def test_no_script_reaches_another_host(browser, site):
    """The policy is the browser's to enforce: on the page, in the worker that reads films, and for pictures."""
    reached = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(site.address)
    page.wait_for_selector("html[data-ready]")
    other = f"http://127.0.0.1:{server.server_port}"
    ask = f"fetch('{other}/secret').then(() => 'reached', () => 'refused')"
    assert page.evaluate(ask) == "refused"
    assert page.workers and {worker.evaluate(ask) for worker in page.workers} == {"refused"}
    page.evaluate(
        """address => new Promise(done => {
            const image = new Image();
            image.onload = image.onerror = () => done(0);
            image.src = address;
        })""",
        f"{other}/picture",
    )
    page.close()
    server.shutdown()
    assert reached == []


def test_it_works_without_a_network_after_the_first_visit(browser, make_site, package, tmp_path):
    site = make_site(package)
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(site.address)
    page.wait_for_selector("html[data-ready]")
    # The policy refuses the code by which playwright's own wait_for_function would ask again and again.
    page.evaluate(
        """async () => {
            const { serviceWorker } = navigator;
            const controlled = new Promise(done => serviceWorker.addEventListener('controllerchange', () => done(0)));
            await serviceWorker.ready;
            if (serviceWorker.controller === null) await controlled;
        }"""
    )
    site.server.shutdown()
    site.server.server_close()
    page.reload()
    for name in ("jpeg_2000", "jpeg_ls"):  # whose decoders were not needed yet
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(sound_dicoms(drawing())[name])
        page.set_input_files("#upload input[type=file]", path)
        page.locator(".films figcaption", has_text=path.name).wait_for()
    assert page.evaluate("crossOriginIsolated")  # so that the network may use several threads
    page.get_by_role("tab", name="The model").click()
    page.wait_for_selector(".absent, .figures")
    context.close()


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, site):
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto(site.address)
    page.set_default_timeout(120_000)
    page.click(".example:nth-child(1)")
    page.wait_for_selector(".reading")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.documentElement.classList.contains('dark')")
    page.close()


def test_every_input_has_a_name_and_tabs_follow_the_arrow_keys(page):
    page.click(".example:nth-child(1)")
    page.wait_for_selector(".reading")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, [role=img]')].filter(node => node.checkVisibility() && !(
            node.getAttribute('aria-label') || node.title || node.innerText?.trim() || node.labels?.length
            || node.closest('label')?.innerText.trim())).map(node => node.outerHTML.slice(0, 120))"""
    )
    assert nameless == []
    page.get_by_role("tab", name="One image").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-many" and page.locator("#many").is_visible()


def test_a_white_film_is_refused_in_words(page, tmp_path):
    path = tmp_path / "white.png"
    path.write_bytes(encoded(Image.new("L", (64, 64), 255), "PNG"))
    page.set_input_files("#upload input[type=file]", path)
    page.get_by_text("white.png: every pixel has the value 255, so there is nothing to see").wait_for()
