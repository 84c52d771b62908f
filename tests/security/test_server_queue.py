"""The queue and the memory of sessions: turns, places, answers that nobody fetches."""

import asyncio
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import Event
from gradio.server_messages import EstimationMessage, ProcessCompletedMessage
from gradio.state_holder import StateHolder

from demo import queueing
from demo.forgetting import MAX_UPLOADS, NoSessions, file_upload_statuses, forget_uploads
from demo.page import _take_uploads_only
from demo.queueing import BUSY, GREEDY, IDLE, MAX_OF_CLIENT, MAX_OF_SESSION, QUEUE_LENGTH, UNREAD, FairQueue


@pytest.fixture
def page() -> gr.Blocks:
    """A page with one function, under the demo's queue."""
    with gr.Blocks(analytics_enabled=False) as page:
        box, file = gr.Textbox(), gr.File()
        gr.Button().click(lambda text, path: text, [box, file], box, concurrency_id="reading", api_name="echo")
    page.queue(api_open=False)
    page._queue = FairQueue(page)
    return page


def push(page: gr.Blocks, client: str, session: str | None = None) -> tuple[bool, Any, Any]:
    body = PredictBodyInternal(session_hash=session, data=["a", None], fn_index=0)
    return asyncio.run(page._queue.push(body, SimpleNamespace(client=(client, 1)), None))


def waiting(page: gr.Blocks) -> list[Event]:
    return page._queue.event_queue_per_concurrency_id["reading"].queue


def test_one_address_cannot_fill_the_queue(page):
    """Sessions are free: whoever wants more places invents more of them."""
    answers = [push(page, "10.0.0.1", f"invented-{number}") for number in range(QUEUE_LENGTH)]
    assert sum(taken for taken, *_ in answers) == MAX_OF_CLIENT < QUEUE_LENGTH
    assert answers[-1] == (False, GREEDY, "queue_full")
    assert push(page, "10.0.0.2", "honest")[0]


def test_one_session_cannot_fill_its_addresses_share(page):
    answers = [push(page, "10.0.0.1", "greedy") for _ in range(QUEUE_LENGTH)]
    assert sum(taken for taken, *_ in answers) == MAX_OF_SESSION < MAX_OF_CLIENT
    assert push(page, "10.0.0.1", "a colleague of the same address")[0]


def test_what_is_being_read_counts_too(page):
    for _ in range(MAX_OF_SESSION):
        push(page, "10.0.0.1", "greedy")
    page._queue.active_jobs = [waiting(page).copy(), None]
    waiting(page).clear()
    assert push(page, "10.0.0.1", "greedy") == (False, GREEDY, "queue_full")


def test_clients_take_turns(page):
    for number in range(20):
        push(page, "10.0.0.1", f"flood-{number}")
    for client in ("10.0.0.2", "10.0.0.3", "10.0.0.2"):
        push(page, client, f"honest-{client}")
    clients = [event.request.client[0] for event in waiting(page)]
    assert clients[:5] == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1", "10.0.0.2"]
    floods = [event.session_hash for event in waiting(page) if event.request.client[0] == "10.0.0.1"]
    assert floods == [f"flood-{number}" for number in range(20)]  # its own keep their order


def test_a_full_queue_is_busy_for_everybody(page):
    for number in range(QUEUE_LENGTH):
        push(page, f"10.0.0.{number}", f"session-{number}")
    assert push(page, "10.0.1.1", "late") == (False, BUSY, "queue_full")


def test_a_session_with_a_name_of_a_megabyte_is_refused(page):
    taken, message, kind = push(page, "10.0.0.1", "a" * 2**20)
    assert not taken and kind == "error" and "64 characters" in message


@pytest.mark.parametrize(
    ("fn_index", "data"),
    [
        (0, ["a"]),
        (0, ["a", None, 1]),
        (7, ["a", None]),
        (0, ["a" * 9999, None]),
        (0, ["a", {"b": [[{"c" * 9999: 1}]]}]),
    ],
)
def test_calls_of_another_form_do_not_reach_gradio_which_would_log_them(page, fn_index, data):
    body = PredictBodyInternal(session_hash="a", data=data, fn_index=fn_index)
    taken, _, kind = asyncio.run(page._queue.push(body, SimpleNamespace(client=("10.0.0.1", 1)), None))
    assert not taken and kind == "error"


def finish(page: gr.Blocks, session: str) -> None:
    """Answer everything that waits, as gradio does when a function has returned."""
    for event in waiting(page).copy():
        waiting(page).remove(event)
        page._queue.send_message(event, ProcessCompletedMessage(output={"data": [session]}, success=True))


def test_answers_that_nobody_fetches_are_dropped(page):
    for number in range(300):
        push(page, "10.0.0.1", f"invented-{number}")
        finish(page, f"invented-{number}")
    queue = page._queue
    kept = list(queue.pending_messages_per_session)
    assert kept == [f"invented-{number}" for number in range(300 - UNREAD, 300)]
    assert list(queue.pending_event_ids_session) == kept


def test_sessions_that_fetched_their_answers_are_dropped_too(page):
    for number in range(IDLE + 200):
        push(page, "10.0.0.1", f"invented-{number}")
        finish(page, "done")
        messages = page._queue.pending_messages_per_session[f"invented-{number}"]
        while not messages.empty():
            messages.get_nowait()
    assert len(page._queue.pending_messages_per_session) <= IDLE + 1
    assert len(page._queue.pending_event_ids_session) <= IDLE + 1


def test_a_session_that_waits_is_never_dropped(page, monkeypatch):
    push(page, "10.0.0.1", "patient")
    monkeypatch.setattr(queueing, "IDLE_LIVE", -1.0)
    page._queue.forget()
    assert "patient" in page._queue.pending_messages_per_session
    finish(page, "patient")  # its answer stays for as long as answers do
    page._queue.forget()
    assert "patient" not in page._queue.pending_messages_per_session


def test_a_message_to_a_session_that_is_gone_is_dropped(page):
    push(page, "10.0.0.1", "gone")
    page._queue.pending_messages_per_session.clear()
    page._queue.send_message(waiting(page)[0], EstimationMessage(queue_size=1))
    assert not page._queue.pending_messages_per_session


@pytest.mark.parametrize("holder", [NoSessions])
def test_nothing_of_a_session_is_kept(page, holder: type[StateHolder]):
    sessions = holder()
    sessions.set_blocks(page)
    for number in range(100):
        state = sessions[f"invented-{number}"]
        state._update_value_in_config(1, "a radiograph" * 1000)
        assert state.config_values == {} and state.blocks_config.fns == page.fns
    assert not sessions.session_data and not sessions.time_last_used
    assert "invented-1" not in sessions  # so that a link to it finds nothing


def test_records_of_uploads_are_dropped(page):
    for number in range(MAX_UPLOADS + 500):
        file_upload_statuses.append(f"upload-{number}", "a.png", b"x")
    page.upload_file_set.update(f"/tmp/{number}.png" for number in range(500))
    forget_uploads(page)
    assert len(file_upload_statuses._signals) == len(file_upload_statuses._statuses) == MAX_UPLOADS
    assert not page.upload_file_set


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/a.png", "file:///etc/passwd", "/etc/passwd"])
def test_a_stream_is_refused_before_any_file_is_touched(page, path, monkeypatch):
    """gradio moves no stream to its cache, so that it never asks whether this one is an upload."""
    _take_uploads_only(page)
    file = next(block for block in page.blocks.values() if isinstance(block, gr.File))
    monkeypatch.setattr(gr.File, "_process_single_file", lambda *_: pytest.fail("a file was touched"))
    payload = file.data_model(path=path, is_stream=True, meta={"_type": "gradio.FileData"})
    with pytest.raises(gr.Error, match="Addresses are not fetched"):
        file.preprocess(payload)
