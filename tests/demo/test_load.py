"""The demo under load: many clients at once, each with a radiograph of its own; and what it keeps in memory."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from cxrfpn.data.phantom import draw_phantom
from demo.examples import FOLDER, load_examples

CLIENTS, SECONDS = 64, 60
MOST_GROWTH = 40  # MB


@pytest.mark.slow
def test_each_of_many_clients_gets_the_answer_to_its_own_radiograph(server, address, pipe, tmp_path, capsys):
    """64 clients for a minute, each asking again as soon as it is answered."""
    ages = [20 + number % 60 for number in range(CLIENTS)]
    paths, expected = [tmp_path / f"{number}.png" for number in range(CLIENTS)], []
    for number, path in enumerate(paths):
        Image.fromarray(draw_phantom(np.random.default_rng(number))[0]).save(path)
        expected.append({each["label"]: each["score"] for each in pipe({"image": path, "age": ages[number]})})
    assert len({tuple(scores.values()) for scores in expected}) == CLIENTS  # a crossed answer would be seen
    all_there = Barrier(CLIENTS)

    def ask(number: int) -> list[float]:
        client = Client(address, verbose=False, httpx_kwargs={"timeout": 300})
        all_there.wait()
        end, took = time.monotonic() + SECONDS, []
        while (asked := time.monotonic()) < end:
            answer = client.predict(handle_file(paths[number]), ages[number], api_name="/predict")
            took.append(time.monotonic() - asked)
            scores = {each["label"]: each["score"] for each in answer["findings"]}
            assert scores == pytest.approx(expected[number], abs=1e-5)
        return took

    before = server.resident()
    with ThreadPoolExecutor(CLIENTS) as pool:
        took = np.concatenate(list(pool.map(ask, range(CLIENTS))))
    half, most = np.quantile(took, [0.5, 0.95])
    with capsys.disabled():
        print(f"\n{CLIENTS} clients: {len(took) / SECONDS:.1f} answers/s, p50 {half:.1f} s, p95 {most:.1f} s, memory "
              f"{before:.0f} MB before and {server.resident():.0f} MB after")  # fmt: skip
    assert len(took) >= CLIENTS


@pytest.mark.slow
def test_memory_stays_flat_over_500_requests(server, address):
    client = Client(address, verbose=False)
    files = [handle_file(FOLDER / example["file"]) for example in load_examples()]
    for turn in range(100):
        client.predict(files[turn % len(files)], api_name="/predict")
    before = server.resident()
    for turn in range(500):
        client.predict(files[turn % len(files)], api_name="/predict")
    assert server.resident() - before < MOST_GROWTH
