"""Names and errors that others chose: no formula in a spreadsheet, no command to a terminal, and still readable."""

import csv
import importlib
import io
import json
import sys

import pytest
from PIL import Image

from configuration_cxrfpn import FINDINGS
from cxrfpn.cells import cell, text_of, write_csv
from cxrfpn.evaluation.predictions import read_predictions
from cxrfpn.terminal import say, show
from predict import main
from tests.hardening.dicoms import make_dicom, stored

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "＋1", "－1", "＠A", " =1", '"=1', "'=1", "\t=1"]


@pytest.mark.parametrize("start", ["", "film.png;", "film,", "a;b; "])
@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_becomes_text_wherever_a_cell_may_begin(start, formula):
    written = cell(start + formula)
    for separator in (";", ",", "\t"):
        for part in written.split(separator):
            assert part.lstrip(' "')[:1] not in tuple("=+-@＝＋－＠")
    assert text_of(written) == start + formula.replace("\t", "?")


@pytest.mark.parametrize(
    "text", ["film.png", "a-b=c+d@e.png", "Mass|Nodule", "x: damaged (1 - 2)", "Röntgen 胸.dcm", ""]
)
def test_other_text_stays_as_it_is(text):
    assert cell(text) == text_of(text) == text


def test_all_text_is_quoted_and_numbers_are_not():
    file = io.StringIO()
    write_csv(file, ["image", "score"], [["=a\x1b[31m;b", 0.5], [None, -1.5]])
    assert file.getvalue() == '"image","score"\r\n"\'=a?[31m;b",0.5\r\n"",-1.5\r\n'


@pytest.fixture
def ward(tmp_path, drawing, monkeypatch):
    """A folder of names that attack, two of them of files that cannot be read."""
    folder = tmp_path / "ward"
    folder.mkdir()
    for name in ("=cmd;=1+1.png", "red \x1b[31m\u202e.png"):
        Image.fromarray(drawing).save(folder / name)
    (folder / "@evil \x1b]0;title\x07.png").write_bytes(b"no picture")
    monkeypatch.chdir(folder)  # so that the names begin as they do
    return folder


@pytest.fixture
def run(package, monkeypatch, capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["predict.py", "--model", str(package), *arguments])
        return main(), *capsys.readouterr()

    return run


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_no_control_character_reaches_the_terminal(ward, run, form):
    code, out, err = run("*.png", "nowhere\x1b.png", "--format", form)
    assert code == 2
    for text in (out, err):
        assert "png" in text and not any(sign in text for sign in "\x1b\x07\u202e")


def test_no_formula_reaches_the_spreadsheet_and_scores_are_read_again(ward, run, tmp_path):
    table = tmp_path / "findings.csv"
    assert run("*.png", "--format", "csv", "--output", str(table))[0] == 2
    rows = list(csv.reader(table.open(newline="", encoding="utf-8")))
    assert [row[0] for row in rows[1:]] == ["'=cmd;'=1+1.png", "'@evil ?]0;title?.png", "red ?[31m?.png"]
    assert not any(text.startswith(tuple("=+-@")) for row in rows for text in row)
    scores = read_predictions(table)
    assert list(scores.index) == ["=cmd;=1+1.png", "red ?[31m?.png"] and list(scores.columns) == [*FINDINGS, "fit"]
    _, out, _ = run("=cmd;=1+1.png", "--format", "json")
    assert json.loads(out)["image"] == "=cmd;=1+1.png"


def test_a_glob_that_matches_nothing_is_named_without_its_commands(run):
    code, out, err = run("nowhere\x1b[2J*.png")
    assert (code, out) == (2, "") and "matches no file" in err and "\x1b" not in err


EVIL = "ward\x1b]0;title\x07\u202e\nall is well"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("predict", [f"{EVIL}*.png"]),
        ("prepare", ["--source", f"csv:{EVIL}.csv", "--output", "out"]),
        ("score", ["--predictions", f"{EVIL}.csv", "--source", "phantom:10", "--split", "all"]),
        ("train", [f"{EVIL}.yaml"]),
        ("publish", [EVIL, "--model-repo", "org/a", "--space-repo", "org/b"]),
    ],
)
def test_what_a_script_says_of_a_name_commands_no_terminal(script, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
    assert importlib.import_module(script).main() == 2
    out, err = capsys.readouterr()
    assert not out and err.splitlines()[-1].startswith(f"{script}: ") and "ward?]0;title???all is well" in err
    assert all(line.isprintable() for line in err.splitlines())


def test_lines_and_texts_are_printed_with_question_marks_for_commands(capsys):
    say("one\x1b[2J\ntwo", "three")
    show("one\x1b[2J\ntwo", "three")
    out, err = capsys.readouterr()
    assert err == "one?[2J?two\nthree\n" and out == "one?[2J\ntwo\nthree\n"


def test_a_note_of_a_header_commands_no_terminal(run, drawing, tmp_path):
    (tmp_path / "film.dcm").write_bytes(stored(make_dicom(drawing, 8, Modality="\x1b[31mCT")))
    code, out, err = run(str(tmp_path / "film.dcm"))
    assert code == 0 and "note: The header says that the modality is" in out and "\x1b" not in out + err
