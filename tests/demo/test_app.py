"""The demo as it is served: a real server on loopback, asked by gradio's client, by curl and by a browser."""

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from transformers import pipeline

from configuration_cxrfpn import FINDINGS
from demo.examples import FOLDER, load_examples

ROOT = Path(__file__).resolve().parents[2]
CALLS = ROOT / "demo" / "calls.md"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Chromium as root, in a closed network: no sandbox, and no calls home.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
EXAMPLE = FOLDER / load_examples()[1]["file"]


@pytest.fixture(scope="module")
def measured_package(package: Path, tmp_path_factory) -> Path:
    """The tiny package, with figures beside it as score.py writes them."""
    folder = tmp_path_factory.mktemp("measured") / "tiny"
    shutil.copytree(package, folder)
    thresholds = json.loads((folder / "thresholds.json").read_text())
    points = thresholds["operating_points"]
    # Every other finding is called, whatever its score: so the order of calls is not that of scores.
    points["sensitivity_90"] = {name: 0.1 if index % 2 else 0.9 for index, name in enumerate(FINDINGS)}
    (folder / "thresholds.json").write_text(json.dumps(thresholds))
    counts = {"sensitivity": 0.75, "specificity": 0.5, "true_positives": 30, "false_negatives": 10,
              "true_negatives": 50, "false_positives": 50, "few_positives": False}  # fmt: skip
    told = {
        "positives": 40,
        "auroc": 0.7123,
        "auroc_ci": [0.6, 0.8],
        "threshold": 0.5,
        "recall": 0.75,
        "specificity": 0.5,
    }
    figures = {
        "images": 1234, "patients": 321, "split": "test", "mean_auroc": 0.7654, "mean_auroc_ci": [0.7, 0.8],
        "operating_point": "dynamic_adjustment", "macro": {"f1": 0.3}, "floors": {}, "subgroups": {},
        "findings": dict.fromkeys(FINDINGS, told),
        "operating_points": {
            point: {name: {"threshold": value, **counts} for name, value in thresholds.items()}
            for point, thresholds in points.items()
        },
    }  # fmt: skip
    (folder / "results" / "plots").mkdir(parents=True)
    (folder / "results" / "metrics.json").write_text(json.dumps(figures))
    Image.new("RGB", (40, 30), "white").save(folder / "results" / "plots" / "roc.png")
    return folder


@pytest.fixture(scope="module")
def server(measured_package: Path, tmp_path_factory) -> Iterator[tuple[str, subprocess.Popen, Path]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uploads = tmp_path_factory.mktemp("uploads")
    environment = {
        **os.environ, "CXR_MODEL": str(measured_package), "PORT": str(port), "GRADIO_TEMP_DIR": str(uploads),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    environment["PYTHONUNBUFFERED"] = "1"
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        # The port answers before gradio has asked itself whether it does; a crowd must not come in between.
        assert any("Running on" in line for line in process.stdout), "the demo stopped while starting"
        yield url, process, uploads
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def address(server) -> str:
    return server[0]


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


@pytest.fixture(scope="module")
def pipe(measured_package: Path):
    return pipeline("chest-xray-findings", model=str(measured_package), trust_remote_code=True)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no browser: install Chromium (Debian: apt-get install chromium) to test the page")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page.problems, page.asked = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("dialog", lambda dialog: page.problems.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    page.wait_for_selector(".example")
    yield page
    page.close()
    assert not page.problems
    assert all(url.startswith((address, "data:", "blob:")) for url in page.asked)  # nothing of the network


def scores(answer: dict) -> dict[str, float]:
    return {finding["label"]: finding["score"] for finding in answer["findings"]}


# The API


def test_predict_gives_the_pipelines_findings(client, pipe):
    answer = client.predict(handle_file(EXAMPLE), 63, "F", "AP", "youden", api_name="/predict")
    expected = pipe({"image": EXAMPLE, "age": 63, "sex": "F", "view_position": "AP"}, operating_point="youden")
    assert [finding["label"] for finding in answer["findings"]] == [finding["label"] for finding in expected]
    for given, wanted in zip(answer["findings"], expected, strict=True):
        assert given["score"] == pytest.approx(wanted["score"], abs=1e-6)
        assert given["probability"] == pytest.approx(wanted["probability"], abs=1e-6)
        assert (given["threshold"], given["positive"]) == (wanted["threshold"], wanted["positive"])
    assert answer["patient"] == {"age": 63, "sex": "F", "view_position": "AP"}


def test_what_is_left_out_is_unknown(client, pipe):
    answer = client.predict(handle_file(EXAMPLE), api_name="/predict")
    assert answer["patient"] == {"age": None, "sex": None, "view_position": None}
    assert scores(answer) == pytest.approx({each["label"]: each["score"] for each in pipe(EXAMPLE)}, abs=1e-6)


def test_clients_are_told_the_endpoints_and_their_types(client):
    told = client.view_api(return_format="dict")["named_endpoints"]
    assert set(told) == {"/predict", "/predict_batch"}
    parameters = {each["parameter_name"]: each for each in told["/predict"]["parameters"]}
    assert list(parameters) == ["image", "age", "sex", "view_position", "operating_point"]
    assert "float" in parameters["age"]["python_type"]["type"]
    assert "Literal" in parameters["sex"]["python_type"]["type"]
    assert not parameters["image"]["parameter_has_default"]
    assert parameters["age"]["parameter_has_default"]


def test_a_batch_has_a_row_for_every_file_good_or_bad(client, pipe, tmp_path):
    letter = tmp_path / "letter.png"
    letter.write_text("Dear colleague")
    archive = tmp_path / "ward.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.write(EXAMPLE, "../../etc/passwd.png")
        zipped.writestr("__MACOSX/._passwd.png", "resource")
    rows = client.predict([handle_file(path) for path in (EXAMPLE, letter, archive)], api_name="/predict_batch")
    assert [row["image"] for row in rows] == [EXAMPLE.name, "letter.png", "passwd.png"]
    assert rows[1] == {"image": "letter.png", "error": rows[1]["error"]} and "not an image" in rows[1]["error"]
    expected = pytest.approx({each["label"]: each["score"] for each in pipe(EXAMPLE)}, abs=1e-6)
    assert scores(rows[0]) == expected and scores(rows[2]) == expected


@pytest.mark.parametrize(
    ("patient", "message"),
    [((414, "F", "AP"), "age"), ((63, "X", "AP"), "X"), ((63, "F", "AP", "nobody's"), "nobody's")],
)
def test_impossible_input_is_answered_in_one_line(client, patient, message):
    with pytest.raises(AppError, match=message) as caught:
        client.predict(handle_file(EXAMPLE), *patient, api_name="/predict")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_radiograph_is_answered_without_a_server_path(client, tmp_path):
    path = tmp_path / "letter.png"
    path.write_text("Dear colleague")
    with pytest.raises(AppError, match=r"letter\.png: not an image that can be read") as caught:
        client.predict(handle_file(path), api_name="/predict")
    assert "/" not in str(caught.value)


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/a.png", "https://example.org/a.png", "/etc/passwd", "app.py"])
def test_neither_addresses_nor_files_of_the_server_are_read(address, path):
    """Asked as a program without gradio's client would: the path is whatever a stranger writes."""
    body = {
        "data": [{"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}, None, "unknown", "unknown", None]
    }
    request = urllib.request.Request(
        f"{address}/gradio_api/call/predict", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    event = json.load(urllib.request.urlopen(request))["event_id"]
    answer = urllib.request.urlopen(f"{address}/gradio_api/call/predict/{event}").read().decode()
    assert "event: error" in answer and "findings" not in answer
    assert ("Addresses are not fetched" in answer) == ("://" in path)


def test_an_upload_that_is_too_large_is_refused_while_it_comes(address):
    boundary = b"----x"
    body = b"--" + boundary + b'\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body += bytes(65 * 2**20) + b"\r\n--" + boundary + b"--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=----x"}
    with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)) as caught:
        urllib.request.urlopen(urllib.request.Request(f"{address}/gradio_api/upload", body, kind))
    assert getattr(caught.value, "code", 413) == 413


@pytest.mark.slow
def test_many_clients_at_once_are_all_answered_rightly(address, pipe):
    """32 at once, five requests each, with 32 different patients."""
    ages = range(20, 52)
    expected = {age: {each["label"]: each["score"] for each in pipe({"image": EXAMPLE, "age": age})} for age in ages}

    def ask(number: int) -> None:
        client = Client(address, verbose=False, httpx_kwargs={"timeout": 300})
        for turn in range(5):
            age = ages[(number + turn) % 32]
            answer = client.predict(handle_file(EXAMPLE), age, api_name="/predict")
            assert scores(answer) == pytest.approx(expected[age], abs=1e-5)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(ask, range(32)))


def test_the_examples_of_the_manual_run(address, tmp_path, page):
    """Python, curl and JavaScript, as they stand in demo/calls.md."""
    text = CALLS.read_text().replace("http://127.0.0.1:7860", address)
    calls = {kind: code for kind, code in re.findall(r"```(python|sh|js)\n(.*?)```", text, re.DOTALL)}
    shutil.copy(EXAMPLE, tmp_path / "radiograph.png")
    runs = {"python": [sys.executable, "-c", calls["python"]], "sh": ["bash", "-c", calls["sh"]]}
    for kind, command in runs.items():
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert all(name in done.stdout for name in FINDINGS), kind
    bytes_ = list(EXAMPLE.read_bytes())
    answer = page.evaluate(
        f"async (bytes) => {{ {calls['js']}; return findings(new File([new Uint8Array(bytes)], 'radiograph.png')); }}",
        bytes_,
    )
    assert {finding["label"] for finding in answer["findings"]} == set(FINDINGS)


# The page


def read_example(page, number: int = 2) -> None:
    page.click(f".example:nth-child({number})")
    page.wait_for_selector(".reading")


def shown(page) -> dict[str, bool]:
    """Findings in the order in which they stand, and whether they are called."""
    rows = page.locator(".finding").evaluate_all(
        "rows => rows.map(row => [row.dataset.finding, row.classList.contains('positive')])"
    )
    return {label: positive for label, positive in rows}


def test_an_upload_is_read_and_what_was_not_told_is_unknown(page, pipe):
    page.set_input_files("#upload input[type=file]", EXAMPLE)
    page.wait_for_selector(".reading")
    assert "age unknown · sex unknown · view unknown" in page.locator(".patient").inner_text()
    findings = pipe(EXAMPLE)
    order = [each["label"] for positive in (True, False) for each in findings if each["positive"] == positive]
    assert list(shown(page)) == order
    first = page.locator(".finding").first
    assert f"{findings[0]['score']:.2f}" in first.inner_text()
    assert "sensitivity 75 % (30 of 40), specificity 50 % (50 of 100)" in first.inner_text()


def test_the_operating_point_changes_calls_without_asking_the_server(page, pipe):
    read_example(page)
    page.wait_for_timeout(500)
    before, asked = shown(page), len(page.asked)
    page.locator(".points label", has_text="90 % sensitivity").click()
    example = load_examples()[1]
    told = {key: example[key] for key in ("age", "sex", "view_position")}
    findings = pipe({"image": EXAMPLE, **told}, operating_point="sensitivity_90")
    expected = [(each["label"], each["positive"]) for each in sorted(findings, key=lambda each: not each["positive"])]
    assert list(shown(page).items()) == expected != list(before.items())
    assert len({positive for _, positive in expected}) == 2
    assert [url for url in page.asked[asked:] if url.startswith("http")] == []


def test_a_click_on_a_finding_shows_its_map_and_the_keyboard_does_too(page):
    read_example(page)
    row = page.locator(".finding").nth(5)
    name = row.get_attribute("data-finding").replace("_", " ")
    row.focus()
    page.keyboard.press("Enter")
    assert name in page.locator(".films figure").nth(1).inner_text()
    assert page.locator(".finding[aria-pressed=true]").get_attribute("data-finding").replace("_", " ") == name
    assert page.evaluate("document.activeElement.dataset.finding.replaceAll('_', ' ')") == name
    if page.locator(".layer").count():
        page.locator(".opacity input").fill("0.2")
        assert page.locator(".layer").evaluate("layer => layer.style.opacity") == "0.2"


def test_the_result_is_downloaded_as_json_and_as_a_page(page, pipe, tmp_path):
    read_example(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download JSON").click()
    answer = json.loads(Path(waiting.value.path()).read_text())
    assert {each["label"] for each in answer["findings"]} == set(FINDINGS)
    assert answer["findings"][0]["sensitivity"] == 0.75 and answer["notice"].endswith("Not for clinical use.")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download page").click()
    with Image.open(waiting.value.path()) as sheet:
        assert sheet.size == (1240, 1754) and np.asarray(sheet.convert("L")).std() > 20


def test_a_dicom_header_fills_the_form_and_its_names_stay_unseen(page, dicom, tmp_path):
    path = tmp_path / "scan.dcm"
    told = {"PatientAge": "058Y", "PatientSex": "F", "ViewPosition": "AP"}
    path.write_bytes(dicom(PatientName="Doe^<script>alert(1)</script>", PatientID="SECRET-1", **told))
    page.set_input_files("#upload input[type=file]", path)
    page.wait_for_selector(".reading")
    assert "58 years · female · AP" in page.locator(".patient").inner_text()
    assert page.locator("#age input, #age textarea").input_value() == "58"
    whole = page.content()
    assert "Doe" not in whole and "SECRET" not in whole
    page.locator("#upload button[aria-label='Clear'], #upload button[title='Clear']").first.click()
    page.wait_for_function("document.querySelector('#age input, #age textarea').value === ''")


def test_a_name_with_html_in_it_is_text(page, tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    shutil.copy(EXAMPLE, path)
    page.set_input_files("#upload input[type=file]", path)
    page.wait_for_selector(".reading")
    page.get_by_role("tab", name="Many images").click()
    page.set_input_files("#uploads input[type=file]", [path])
    page.get_by_text("alert(1)").last.wait_for()
    page.wait_for_timeout(500)
    page.click("#read-all")
    page.wait_for_selector(".save")
    assert page.locator("img[src=x]").count() == 0  # dialogs are caught by the fixture


def test_what_is_no_chest_is_met_with_a_word_and_greyed(page, tmp_path):
    from demo.strangers import KINDS

    path = tmp_path / "hand.png"
    KINDS["hand"](np.random.default_rng(5)).save(path)
    page.set_input_files("#upload input[type=file]", path)
    page.get_by_text("does not look like a chest radiograph").wait_for()
    assert page.locator(".reading.unsure").count() == 1
    read_example(page)
    page.wait_for_selector(".reading:not(.unsure)")


def test_a_bad_file_and_a_bad_age_are_told_in_place(page, tmp_path):
    path = tmp_path / "letter.png"
    path.write_text("Dear colleague")
    page.set_input_files("#upload input[type=file]", path)
    page.wait_for_selector(".refused")
    assert "letter.png: not an image" in page.locator(".refused").inner_text()
    read_example(page)
    page.locator("#age input, #age textarea").fill("414")
    page.click("#read")
    page.wait_for_selector(".refused")
    assert "from 0 to 120" in page.locator(".refused").inner_text()


def test_many_images_are_a_table_that_sorts_and_saves(page, tmp_path):
    letter, formula = tmp_path / "letter.png", tmp_path / "=1+1.png"
    letter.write_text("Dear colleague")
    shutil.copy(EXAMPLE, formula)
    page.get_by_role("tab", name="Many images").click()
    page.set_input_files("#uploads input[type=file]", [EXAMPLE, letter, formula, FOLDER / load_examples()[0]["file"]])
    page.get_by_text("1+1", exact=False).first.wait_for()
    page.wait_for_timeout(500)
    page.click("#read-all")
    page.wait_for_selector(".save")
    assert "4 files read, 1 of them could not be used" in page.locator(".batch-head").inner_text()
    assert "not an image" in page.locator("tr.failed").inner_text()
    page.locator("th[data-column=Effusion] button").click()
    column = list(FINDINGS).index("Effusion") + 1
    values = [
        float(text) for text in page.locator(f"tbody tr:not(.failed) td:nth-of-type({column + 1})").all_inner_texts()
    ]
    assert values == sorted(values, reverse=True)
    with page.expect_download() as waiting:
        page.click(".save")
    table = Path(waiting.value.path()).read_text()
    assert table.count("\n") == 5 and "\n'=1+1.png," in table.replace("\r", "")


def test_the_models_figures_are_those_of_its_files(page):
    page.get_by_role("tab", name="The model").click()
    page.wait_for_selector(".figures")
    told = page.locator(".figures").inner_text()
    assert "0.765" in told and "1,234" in told and "0.712" in told
    assert page.locator(".plots img").count() == 1


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(address)
    page.wait_for_selector(".example")
    read_example(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_every_input_has_a_name_for_screen_readers(page):
    read_example(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, [role=img]')].filter(node => node.checkVisibility() && !(
            node.getAttribute('aria-label') || node.title || node.innerText?.trim() || node.labels?.length
            || node.closest('label')?.innerText.trim())).map(node => node.outerHTML.slice(0, 120))"""
    )
    assert nameless == []


@pytest.mark.slow
def test_memory_stays_flat_over_500_requests(server, client):
    _, process, _ = server
    files = [handle_file(FOLDER / example["file"]) for example in load_examples()]

    def resident() -> float:
        return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

    for turn in range(100):
        client.predict(files[turn % len(files)], api_name="/predict")
    before = resident()
    for turn in range(500):
        client.predict(files[turn % len(files)], api_name="/predict")
    assert resident() - before < 40  # MB
