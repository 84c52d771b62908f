"""The demo's page as it is served: a real server on loopback, used by a real browser."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from configuration_cxrfpn import FINDINGS
from demo.examples import FOLDER, load_examples

EXAMPLE = FOLDER / load_examples()[1]["file"]


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
    patient = {key: example[key] for key in ("age", "sex", "view_position")}
    findings = pipe({"image": EXAMPLE, **patient}, operating_point="sensitivity_90")
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
    header = {"PatientAge": "058Y", "PatientSex": "F", "ViewPosition": "AP"}
    path.write_bytes(dicom(PatientName="Doe^<script>alert(1)</script>", PatientID="SECRET-1", **header))
    page.set_input_files("#upload input[type=file]", path)
    page.wait_for_selector(".reading")
    assert "58 years · female · AP" in page.locator(".patient").inner_text()
    assert page.locator("#age input, #age textarea").input_value() == "58"
    whole = page.content()
    assert "Doe" not in whole and "SECRET" not in whole
    page.locator("#upload button[aria-label='Clear'], #upload button[title='Clear']").first.click()
    page.wait_for_function("document.querySelector('#age input, #age textarea').value === ''")


def test_a_note_stands_above_the_findings_in_the_download_and_in_the_table(page, dicom, tmp_path):
    path = tmp_path / "side.dcm"
    path.write_bytes(dicom(ViewPosition="LATERAL"))
    note = "The view is lateral, but the model knows frontal radiographs only."
    page.set_input_files("#upload input[type=file]", path)
    page.wait_for_selector(".reading")
    assert page.locator(".notes li").all_inner_texts() == [note]
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download JSON").click()
    assert json.loads(Path(waiting.value.path()).read_text())["notes"] == [note]
    page.get_by_role("tab", name="Many images").click()
    path = path.rename(tmp_path / "another.dcm")
    page.set_input_files("#uploads input[type=file]", [path])
    page.get_by_text("another.dcm").last.wait_for()
    page.wait_for_timeout(500)
    page.click("#read-all")
    page.wait_for_selector(".save")
    assert note in page.locator(".batch-root tbody").inner_text()


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
    from tools.non_chest import KINDS

    path = tmp_path / "hand.png"
    KINDS["hand"](np.random.default_rng(5)).save(path)
    page.set_input_files("#upload input[type=file]", path)
    page.get_by_text("does not look like an upright frontal chest radiograph").wait_for()
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
    letter, formula, wide = tmp_path / "letter.png", tmp_path / "=1+1.png", tmp_path / "a; \uff1d1+1.png"
    letter.write_text("Dear colleague")
    for path in (formula, wide):
        shutil.copy(EXAMPLE, path)
    page.get_by_role("tab", name="Many images").click()
    page.set_input_files("#uploads input[type=file]", [EXAMPLE, letter, formula, wide])
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
    # A spreadsheet would run them: at the start of a cell, in full width, and behind what separates cells elsewhere.
    names = [row["image"] for row in csv.DictReader(Path(waiting.value.path()).read_text().splitlines())]
    assert names == [EXAMPLE.name, "letter.png", "'=1+1.png", "a;' \uff1d1+1.png"]


def test_the_models_figures_are_those_of_its_files(page):
    page.get_by_role("tab", name="The model").click()
    page.wait_for_selector(".figures")
    text = page.locator(".figures").inner_text()
    assert "0.765" in text and "1,234" in text and "0.712" in text
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
