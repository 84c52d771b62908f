"""The driver of all prediction, with a real engine: order, errors that stay with their items, and early ends."""

import threading
from itertools import count

import numpy as np
import pytest

from cxrfpn.prediction.stream import AHEAD, predict_stream
from engine_cxrfpn import Engine
from loading_cxrfpn import load_pipeline
from torch_engine_cxrfpn import TorchEngine


@pytest.fixture(scope="module")
def engine(package) -> Engine:
    return TorchEngine(load_pipeline(str(package)))


@pytest.fixture(scope="module")
def images(drawing) -> list[np.ndarray]:
    return [np.roll(drawing, 20 * shift, axis=1) for shift in range(5)]


def scores(answer) -> dict[str, float]:
    return {finding["label"]: finding["score"] for finding in answer}


def test_each_item_gets_its_own_answer_or_its_own_error(engine, images):
    batches = [["0", "bad", "1"], [], ["2", "blank"], ["gone"], ["3", "4"]]

    def open_item(item: str) -> dict:
        if item == "gone":
            raise OSError("the disk went away")
        if item in ("bad", "blank"):
            return {"image": b"no picture" if item == "bad" else np.zeros((9, 9)), "age": 50}
        return {"image": images[int(item)], "age": 10 * int(item)}

    seen = list(predict_stream(engine, iter(batches), open_item, name_of=lambda item: f"image {item}"))
    assert [batch for batch, _ in seen] == batches
    outcomes = {each.item: each for _, outcomes in seen for each in outcomes}
    assert [[each.item for each in outcomes] for _, outcomes in seen] == batches
    assert "image bad: not an image" in outcomes["bad"].error and outcomes["gone"].error == "the disk went away"
    assert outcomes["blank"].error.startswith("image blank: every pixel")
    for index in range(5):
        answer = outcomes[str(index)].answer
        assert scores(answer) == pytest.approx(scores(engine({"image": images[index], "age": 10 * index})), abs=5e-3)
    assert len({tuple(scores(outcomes[str(index)].answer).values()) for index in range(5)}) == 5


def test_maps_embeddings_and_what_is_kept_come_only_where_asked_for(engine, images):
    batches = [[0, 1], [2]]
    plain = list(predict_stream(engine, batches, lambda item: {"image": images[item]}))
    assert all("map" not in each.answer[0] and each.answer.embedding is None for _, done in plain for each in done)
    rich = predict_stream(
        engine,
        batches,
        lambda item: {"image": images[item]},
        maps=lambda item: item == 1,
        embeddings=True,
        keep=lambda item, radiograph: (item, radiograph.pixels.shape),
    )
    (first, second) = [done for _, done in rich]
    assert ["map" in each.answer[0] for each in (*first, *second)] == [True, True, False]
    assert first[1].kept == (1, images[1].shape) and second[0].answer.embedding is not None


def test_stopping_early_reads_no_more_than_a_few_batches(engine, images):
    drawn, before = count(), threading.active_count()
    stream = predict_stream(engine, ([next(drawn) % 5] for _ in range(1000)), lambda item: {"image": images[item]})
    next(stream)
    stream.close()
    assert next(drawn) <= AHEAD + 2 and threading.active_count() == before


def test_what_the_source_raises_comes_in_its_place(engine, images):
    def batches():
        yield [0]
        raise ValueError("the source broke")

    stream = predict_stream(engine, batches(), lambda item: {"image": images[item]})
    assert len(next(stream)[1]) == 1
    with pytest.raises(ValueError, match="the source broke"):
        next(stream)
