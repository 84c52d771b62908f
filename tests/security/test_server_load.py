"""What honest clients notice of an attacker beside them, and what the server keeps of invented sessions."""

import contextlib
import json
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Thread

import httpx
import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from cxrfpn.data.phantom import draw_phantom
from demo.examples import FOLDER, load_examples
from tests.servers import Demo, Visitor, running_demo

CLIENTS, SECONDS, SESSIONS = 64, 60, 10_000
MOST_GROWTH = 150  # MB; a reading takes 0.3 to 1.4 MB
EXAMPLE = FOLDER / load_examples()[1]["file"]


@pytest.fixture
def demo(package: Path, tmp_path: Path) -> Iterator[Demo]:
    with running_demo(package, tmp_path) as demo:
        yield demo


def page_reading(demo: Demo) -> int:
    """Return the number by which the page asks for a reading, with maps and the radiograph in the answer."""
    config = httpx.get(f"{demo.address}/config").json()
    shown = next(block["id"] for block in config["components"] if block["props"].get("elem_id") == "reader")
    return next(
        each["id"] for each in config["dependencies"] if each["outputs"] == [shown] and len(each["inputs"]) == 4
    )


class Attacker(Visitor):
    """One client that does everything at once until it is stopped; what it is answered is of no interest to it."""

    def __init__(self, demo: Demo, folder: Path):
        super().__init__(demo, "10.0.0.1")
        self.demo, self.reading, self.stopped = demo, page_reading(demo), Event()
        self.file, self.bombs, self.count = self.upload(EXAMPLE), folder / "bombs.zip", 0
        with zipfile.ZipFile(self.bombs, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(20):
                archive.writestr(f"{number}.png", bytes(65 * 2**20))
        attacks = [
            self.invent_session, self.send_json, self.send_field, self.break_off, self.send_bombs, self.ask_closed,
            self.hold_connections,
        ]  # fmt: skip
        self.threads = [Thread(target=self.repeat, args=(attack,), daemon=True) for attack in attacks]

    def __enter__(self) -> "Attacker":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(60)

    def repeat(self, attack: Callable[[], None]) -> None:
        while not self.stopped.is_set():
            with contextlib.suppress(httpx.HTTPError, OSError, ValueError):
                attack()
            self.count += 1
            time.sleep(0.02)

    def invent_session(self) -> None:
        body = {"data": [self.file, "", "unknown", "unknown"], "fn_index": self.reading}
        self.http.post("/queue/join", json={**body, "session_hash": f"invented-{self.count}"})

    def send_json(self) -> None:
        for body in (b'{"data": [' + b"[]," * 300_000 + b"0]}", json.dumps({"data": ["a" * 10**6]}).encode()):
            self.http.post("/call/predict", content=body)

    def send_field(self) -> None:
        self.http.post("/upload", data={"note": "a" * 20 * 2**20}, files={"files": ("a.png", b"x")})

    def break_off(self) -> None:
        head = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": "60000000"}
        part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(2**20)
        self.http.post("/upload", content=iter([part]), headers=head)

    def send_bombs(self) -> None:
        self.call("predict_batch", self.upload(self.bombs), None)

    def ask_closed(self) -> None:
        for path in ("/run/predict", "/process_recording", "/component_server"):
            self.http.post(path, json={"data": [self.file]})
        self.http.get("/deep_link", params={"session_hash": f"invented-{self.count}"})

    def hold_connections(self) -> None:
        host, port = self.demo.address.partition("://")[2].split(":")
        with contextlib.ExitStack() as held:
            for _ in range(200):
                held.enter_context(socket.create_connection((host, int(port)))).sendall(b"POST /gradio_api/upl")
            self.stopped.wait(10)


@pytest.mark.slow
def test_honest_clients_are_answered_beside_an_attacker(demo, package, tmp_path, capsys):
    """64 clients for a minute, each asking again as soon as it is answered: all are, and none wrongly."""
    pipe = pipeline("chest-xray-findings", model=str(package), trust_remote_code=True)
    paths, expected = [tmp_path / f"{number}.png" for number in range(CLIENTS)], []
    for number, path in enumerate(paths):
        Image.fromarray(draw_phantom(np.random.default_rng(number))[0]).save(path)
        expected.append({each["label"]: each["score"] for each in pipe({"image": path, "age": 20 + number})})
    assert len({tuple(scores.values()) for scores in expected}) == CLIENTS  # a crossed answer would be seen
    all_answered_once = Barrier(CLIENTS + 1)

    def ask(number: int) -> list[float]:
        visitor, took = Visitor(demo, f"10.0.1.{number}"), []
        assert visitor.predict(paths[number], 20 + number) == pytest.approx(expected[number], abs=1e-5)
        all_answered_once.wait()
        end = time.monotonic() + SECONDS
        while (asked := time.monotonic()) < end:
            assert visitor.predict(paths[number], 20 + number) == pytest.approx(expected[number], abs=1e-5)
            took.append(time.monotonic() - asked)
        return took

    with ThreadPoolExecutor(CLIENTS) as pool, Attacker(demo, tmp_path) as attacker:
        answers = [pool.submit(ask, number) for number in range(CLIENTS)]
        all_answered_once.wait()
        before = demo.resident()
        took = np.concatenate([answer.result() for answer in answers])
        after = demo.resident()
    half, most = np.quantile(took, [0.5, 0.95])
    with capsys.disabled():
        print(f"\n{CLIENTS} clients beside {attacker.count} attacks: {len(took) / SECONDS:.1f} answers/s, "
              f"p50 {half:.1f} s, p95 {most:.1f} s, memory {before:.0f} MB, then {after:.0f} MB")  # fmt: skip
    assert len(took) >= CLIENTS and after - before < MOST_GROWTH


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_invented_sessions(demo, capsys):
    """Each asks the page for a reading, which holds the radiograph, and never comes for it."""
    visitor, reading = Visitor(demo, "10.0.0.1"), page_reading(demo)
    file, before = visitor.upload(EXAMPLE), 0.0
    for number in range(SESSIONS):
        if number % 1000 == 0:  # before it is deleted
            file = visitor.upload(EXAMPLE)
        if number == 500:
            before = demo.resident()
        body = {"data": [file, "", "unknown", "unknown"], "fn_index": reading, "session_hash": f"invented-{number}"}
        while visitor.http.post("/queue/join", json=body).status_code != 200:
            time.sleep(0.2)  # its share of the queue is taken
    after = demo.resident()
    with capsys.disabled():
        print(f"\n{SESSIONS} invented sessions: memory {before:.0f} MB after 500 of them, {after:.0f} MB after all")
    assert after - before < MOST_GROWTH
