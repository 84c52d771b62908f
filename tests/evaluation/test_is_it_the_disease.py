"""Checks of maps and scores: what is shuffled, what is covered, and what a drain explains."""

import numpy as np
import pandas as pd
import pytest

from cxrfpn.evaluation.input_checks import CHANGES, check_drains, shrink
from cxrfpn.evaluation.map_checks import _cover, _summarise_deletion, shuffled
from engine_cxrfpn import load_engine


def test_shuffling_changes_a_copy_and_by_head_only_leaves_the_backbone(package, drawing):
    engine = load_engine(str(package), "torch")
    before = {name: tensor.clone() for name, tensor in engine.pipe.model.state_dict().items()}
    for head_only in (True, False):
        other = shuffled(engine, head_only=head_only)
        changed = {name for name, tensor in other.pipe.model.state_dict().items() if not tensor.equal(before[name])}
        assert changed and any(name.startswith("backbone.") for name in changed) != head_only
        assert other(drawing) != engine(drawing)
    assert all(tensor.equal(before[name]) for name, tensor in engine.pipe.model.state_dict().items())


def test_the_highest_places_are_covered_first():
    order = np.arange(100.0).reshape(10, 10)
    covered = _cover(np.zeros((10, 10), np.uint8), np.full((10, 10), 9, np.uint8), order, 0.1)
    assert covered.sum() == 90 and (covered[9] == 9).all()
    falls = np.zeros((30, 4, 2))
    falls[:, :, 0] = 1
    rows = _summarise_deletion(falls, [str(index // 2) for index in range(30)], 20)
    assert [row["difference"] for row in rows] == [1] * 4 and rows[0]["difference_ci"] == (1, 1)


def test_changes_keep_a_film_a_film(drawing):
    random, film = np.random.default_rng(0), drawing.copy()
    film[:40, :40] = 0  # mirrored, the drawing is the same
    for change in CHANGES.values():
        changed = change(film, random)
        assert changed.dtype == np.uint8 and changed.ndim == 2 and not np.array_equal(changed, film)
    np.testing.assert_array_equal(shrink(drawing[:100, :100]), drawing[:100, :100])  # it is no larger


def test_a_model_that_knows_the_drain_does_better_on_films_that_have_one(tmp_path):
    random = np.random.default_rng(0)
    ids = [f"film{index}" for index in range(300)]
    drain = np.arange(300) < 60
    ill = np.arange(300) < 120
    metadata = pd.DataFrame(
        {"image_id": ids, "patient_id": ids, "findings": [("Pneumothorax",) if x else () for x in ill]}
    )
    scores = pd.DataFrame({"Pneumothorax": random.random(300) + 0.8 * drain}, index=pd.Index(ids, name="image_id"))
    path = tmp_path / "drains.csv"
    pd.DataFrame({"image_id": ids[:120], "drain": drain[:120].astype(int)}).to_csv(path, index=False)
    figures = check_drains(scores, metadata, path, resamples=50)
    assert figures["with a drain"]["films"] == figures["without a drain"]["films"] == 60
    assert figures["with a drain"]["auroc"] > 0.9 and 0.4 < figures["without a drain"]["auroc"] < 0.6
    path.write_text("image_id,tube\na,1\n")
    with pytest.raises(ValueError, match=r"drains.csv: needs the columns image_id and drain"):
        check_drains(scores, metadata, path)
