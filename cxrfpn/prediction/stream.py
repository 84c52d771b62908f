"""The one driver of prediction: read ahead, decode in threads, answer in batches, keep an error with its item."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from answer_cxrfpn import Answer
from engine_cxrfpn import Engine
from radiograph_cxrfpn import Radiograph

# An item, and what is kept of its radiograph.
T = TypeVar("T")
K = TypeVar("K")
# What the engine makes of an item.
Inputs = TypeVar("Inputs")
# Batches that are read and decoded while the network works on another one.
AHEAD = 3


@dataclass(frozen=True)
class Predicted(Generic[T, K]):
    """What came of one item: its answer, or the line that says why there is none; and what was kept of it."""

    item: T
    answer: Answer | None = None
    error: str | None = None
    kept: K | None = None


def predict_stream(
    engine: Engine[Inputs],
    batches: Iterable[Sequence[T]],
    open_item: Callable[[T], Mapping[str, object]],
    *,
    name_of: Callable[[T], str | None] = lambda item: None,
    operating_point: str | None = None,
    maps: Callable[[T], bool] = lambda item: False,
    embeddings: bool = False,
    keep: Callable[[T, Radiograph], K | None] = lambda item, radiograph: None,
) -> Iterator[tuple[Sequence[T], list[Predicted[T, K]]]]:
    """Predict batches of items, in order; an item that cannot be read never stops the others.

    One thread draws from `batches`, as many as there are cores open, decode and prepare items, and the caller's runs
    the network. In memory are AHEAD batches of prepared items, and what `keep` keeps of them.

    Args:
        engine: the model.
        batches: each is one call of the network; an empty one passes through. What the iterable raises is raised in its
            place.
        open_item: makes of an item what `Engine.prepare` takes: {"image": ..., "age": ..., ...}.
        name_of: what errors call the image of an item; None for the image's own name.
        operating_point: whose thresholds to call by.
        maps: whether an item's findings need their map. One item that does makes them for its batch.
        embeddings: whether answers carry the network's pooled features.
        keep: what to keep of a decoded radiograph, such as its pixels; called in the decoding threads.

    Yields:
        each batch, and a list with the outcome of each of its items.
    """
    source = iter(batches)

    def prepare(item: T) -> tuple[Inputs, K | None]:
        inputs = open_item(item)
        radiograph = engine.read(inputs["image"], name_of(item))
        return engine.prepare({**inputs, "image": radiograph}), keep(item, radiograph)

    with ThreadPoolExecutor(decoding_threads()) as decoders, ThreadPoolExecutor(1) as reader:

        def draw() -> tuple[Sequence[T], list[Future[tuple[Inputs, K | None]]]] | None:
            batch = next(source, None)
            return None if batch is None else (batch, [decoders.submit(prepare, item) for item in batch])

        ahead = deque(reader.submit(draw) for _ in range(AHEAD))
        try:
            while (drawn := ahead.popleft().result()) is not None:
                ahead.append(reader.submit(draw))
                yield drawn[0], _predict(engine, *drawn, operating_point, maps, embeddings)
        finally:  # a caller that stops early does not wait for what was read ahead
            for pool in (reader, decoders):
                pool.shutdown(wait=False, cancel_futures=True)


def decoding_threads() -> int:
    """Return how many threads decode: the cores of this process, apart from the network's own threads."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _predict(
    engine: Engine[Inputs],
    batch: Sequence[T],
    futures: Sequence[Future[tuple[Inputs, K | None]]],
    operating_point: str | None,
    maps: Callable[[T], bool],
    embeddings: bool,
) -> list[Predicted[T, K]]:
    prepared: dict[int, tuple[Inputs, K | None]] = {}
    outcomes: dict[int, Predicted[T, K]] = {}
    for index, (item, future) in enumerate(zip(batch, futures, strict=True)):
        try:
            prepared[index] = future.result()
        except (ValueError, OSError) as error:
            outcomes[index] = Predicted(item, error=str(error))
    if prepared:
        with_maps = any(maps(batch[index]) for index in prepared)
        inputs = [each for each, _ in prepared.values()]
        answers = engine.answer(inputs, operating_point, maps=with_maps, embeddings=embeddings)
        for (index, (_, kept)), answer in zip(prepared.items(), answers, strict=True):
            outcomes[index] = Predicted(batch[index], answer, kept=kept)
    return [outcomes[index] for index in range(len(batch))]
