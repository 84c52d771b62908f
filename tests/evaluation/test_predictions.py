"""Anyone's table of scores: how it may be written, and what is said of one that cannot be used."""

import json

import numpy as np
import pandas as pd
import pytest

from answer_cxrfpn import Answer
from configuration_cxrfpn import FINDINGS
from cxrfpn.evaluation.predictions import PredictionsError, match, read_predictions
from cxrfpn.prediction.predicting import Prediction
from cxrfpn.prediction.tables import write_predictions


@pytest.fixture
def table(make_metadata) -> pd.DataFrame:
    metadata = make_metadata(30)
    scores = pd.DataFrame(np.random.default_rng(0).random((30, 14)).round(6), columns=list(FINDINGS))
    return scores.assign(image_id=metadata["image_id"])


def written(table: pd.DataFrame, folder, name: str = "scores.csv"):
    path = folder / name
    table.to_parquet(path) if name.endswith("parquet") else table.to_csv(path, index=False)
    return path


def reworded(table: pd.DataFrame) -> pd.DataFrame:
    renamed = {name: f"prob_{name.replace('_', ' ')}" for name in FINDINGS}
    other = table.rename(columns={**renamed, "image_id": "Image Index"})
    return other.assign(**{"Image Index": "images/" + other["Image Index"] + ".png", "Mass": "label"})[::-1]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
@pytest.mark.parametrize(
    "form",
    [
        lambda table: table,
        reworded,
        lambda table: table.rename(columns=str.upper),
        lambda table: table.rename(columns={"image_id": "path"}).assign(path="C:\\x\\" + table["image_id"] + ".DCM"),
    ],
)
def test_however_it_is_written(table, make_metadata, tmp_path, form, name):
    metadata = make_metadata(30)
    scored = match(read_predictions(written(form(table), tmp_path, name)), metadata, metadata, name)
    np.testing.assert_allclose(scored.scores, table[list(FINDINGS)].to_numpy())
    assert scored.metadata["image_id"].tolist() == metadata["image_id"].tolist()
    assert scored.coverage() == "30 images scored"


def test_what_does_not_match_is_counted_and_named(table, make_metadata, tmp_path):
    metadata = make_metadata(30)
    table.loc[:6, "image_id"] = [f"stranger_{index}" for index in range(7)]
    predictions = read_predictions(written(table, tmp_path))
    scored = match(predictions, metadata[:20], metadata, "a")
    assert len(scored.scores) == 13 and scored.elsewhere == 10
    assert scored.without_scores == tuple(metadata["image_id"][:7])
    line = scored.coverage()
    assert "7 of the split have no score (00000000_0000, " in line and "10 scores are of other splits" in line
    assert "7 scores are of unknown images (stranger_0, stranger_1, stranger_2, stranger_3, stranger_4, ...)" in line
    with pytest.raises(PredictionsError, match=r"a: none of its 30 images \(stranger_0, .*\) is among the 7"):
        match(predictions, metadata[:7], metadata, "a")


def test_zeros_before_an_id_are_kept_and_rows_without_scores_left_out(table, make_metadata, tmp_path):
    table["image_id"] = [f"{index:08}" for index in range(30)]
    table.loc[4, list(FINDINGS)] = np.nan
    predictions = read_predictions(written(table, tmp_path))
    assert predictions.index[:2].tolist() == ["00000000", "00000001"] and len(predictions) == 29


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop(columns="image_id"), "no column names the image"),
        (lambda table: table.drop(columns=["Mass", "Hernia"]), "has no column for Mass, Hernia"),
        (lambda table: table[:0], "has no rows with scores"),
        (lambda table: pd.concat([table, table[3:4]]), "has the image 00000000_0003 twice"),
        (
            lambda table: table.assign(Mass=[0.5] * 9 + [3.2] + [0.5] * 20),
            "00000001_0009, Mass: the score is 3.2, outside",
        ),
        (lambda table: table.assign(Edema=["high"] + ["0.5"] * 29), "00000000_0000, Edema: the score is no number"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_clear_line(table, tmp_path, change, said):
    path = written(change(table), tmp_path)
    with pytest.raises(PredictionsError, match=said) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "said"), [("none.csv", "no such file"), ("bad.parquet", "cannot be read as a table")])
def test_a_file_that_cannot_be_read(tmp_path, name, said):
    (tmp_path / "bad.parquet").write_bytes(b"nonsense")
    with pytest.raises(PredictionsError, match=said):
        read_predictions(tmp_path / name)


@pytest.fixture
def folders(make_metadata) -> pd.DataFrame:
    """Four images of which a folder is all that tells two of them apart."""
    metadata = make_metadata(4)
    metadata["image_id"] = ["a/1.png", "b/1.png", "a/2.png", "b/3.png"]
    return metadata


def scores_named(names: list[str]) -> pd.DataFrame:
    scores = np.arange(14.0 * len(names)).reshape(-1, 14) / 14 / len(names)
    return pd.DataFrame(scores, index=names, columns=list(FINDINGS))


@pytest.mark.parametrize("extension", [".png", ""])
def test_images_are_matched_by_the_sources_own_ids(folders, extension):
    scores = scores_named([name.replace(".png", extension) for name in folders["image_id"]])
    scored = match(scores[::-1], folders, folders, "the model")
    np.testing.assert_array_equal(scored.scores, scores)
    assert not len(scored.without_scores) and scored.elsewhere == 0


def test_one_score_never_counts_for_two_images(folders):
    with pytest.raises(PredictionsError, match="the images a/1.png and b/1.png cannot be told apart as 1; name images"):
        match(scores_named(["/x/1.png", "/x/2.png"]), folders, folders, "a table")
    with pytest.raises(PredictionsError, match="the images a/1.png and b/1.png"):  # one of them in another split
        match(scores_named(["1", "2"]), folders[1:], folders, "a table")
    with pytest.raises(PredictionsError, match="the predictions x/2 and y/2 cannot be told apart as 2"):
        match(scores_named(["x/2", "y/2"]), folders, folders, "a table")
    scored = match(scores_named(["x/2.jpg", "x/3.jpg"]), folders, folders, "a table")  # what is clear is matched
    assert scored.metadata["image_id"].tolist() == ["a/2.png", "b/3.png"]


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_every_form_that_predict_writes(table, make_metadata, tmp_path, form):
    metadata = make_metadata(30)
    predictions = [
        Prediction(f"ward/{row['image_id']}.png", Answer(_findings(row), ["The view is lateral."]))
        for row in table.to_dict("records")
    ]
    write_predictions(
        [*predictions, Prediction("ward/bad.png", error="ward/bad.png: cut")], form, tmp_path / "scores", FINDINGS
    )
    (path,) = tmp_path.iterdir()
    path = path.rename(path.with_suffix(".parquet")) if form == "parquet" else path
    scored = match(read_predictions(path), metadata, metadata, "scores")
    np.testing.assert_allclose(scored.scores, table[list(FINDINGS)].to_numpy())


def _findings(row: dict) -> list[dict]:
    scores = sorted(((row[name], name) for name in FINDINGS), reverse=True)
    common = {"probability": None, "threshold": 0.5, "positive": False, "call": None}
    return [{"label": name, "score": score, **common} for score, name in scores]


def test_an_archive_of_predict_is_read_once_it_is_finished(table, make_metadata, tmp_path):
    metadata = make_metadata(30)
    (tmp_path / "parts").mkdir()
    (tmp_path / "predictions.json").write_text(json.dumps({"parts": ["a", "b"]}))
    table[:20].to_parquet(tmp_path / "parts" / "part-00000-of-00002.parquet")
    with pytest.raises(PredictionsError, match="1 of its 2 parts are there; run predict.py again"):
        read_predictions(tmp_path)
    table[20:].to_parquet(tmp_path / "parts" / "part-00001-of-00002.parquet")
    assert match(read_predictions(tmp_path), metadata, metadata, "archive").coverage() == "30 images scored"
    with pytest.raises(PredictionsError, match="holds no predictions.json"):
        read_predictions(tmp_path / "parts")


@pytest.mark.parametrize(("encoding", "delimiter"), [("utf-16", "\t"), ("utf-8-sig", ";"), ("latin-1", ",")])
def test_a_table_of_another_encoding_and_separator(table, make_metadata, tmp_path, encoding, delimiter):
    metadata = make_metadata(30)
    path = tmp_path / "scores.csv"
    table.assign(Größe="5").to_csv(path, index=False, sep=delimiter, encoding=encoding)
    assert match(read_predictions(path), metadata, metadata, "scores").coverage() == "30 images scored"


def test_the_table_for_people_is_refused_with_the_forms_to_ask_for(table, tmp_path):
    predictions = [Prediction("a.png", Answer(_findings(table.to_dict("records")[0])))]
    write_predictions(predictions, "table", tmp_path / "scores.txt", FINDINGS)
    with pytest.raises(PredictionsError, match="table for people; write it with --format csv, json or parquet"):
        read_predictions(tmp_path / "scores.txt")
