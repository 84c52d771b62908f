"""gradio's queue with limits: clients take turns, none of them fills it, and answers are not kept."""

import time
from collections import Counter, OrderedDict
from collections.abc import Iterator

import fastapi
import gradio as gr
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import Event, EventQueue, Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage

from demo.clients import client_of

QUEUE_LENGTH = 128
# Of these places, what one address may take, behind which may be a whole class, and one session of a page or program.
MAX_OF_CLIENT, MAX_OF_SESSION = 64, 16
# Sessions that wait for nothing: how many may have an answer that nobody fetched, how many there may be at all, and for
# how many seconds they are kept.
UNREAD, IDLE, IDLE_LIVE = 32, 1000, 60.0
# The longest name of a session, and the longest other text, such as the path of an upload, in characters.
LONGEST_SESSION, LONGEST_TEXT = 64, 2048
BUSY = "Many people are asking right now. Please try again in a minute."
GREEDY = "You are waiting for too many readings already. Please try again when some of them are done."


class FairQueue(Queue):
    """A queue in which clients take turns, however much each of them asks for."""

    def __init__(self, page: gr.Blocks):
        super().__init__(
            live_updates=True,
            concurrency_count=page.max_threads,
            update_intervals=1,
            max_size=QUEUE_LENGTH,
            blocks=page,
        )
        self._sessions: OrderedDict[str, float] = OrderedDict()  # when each was last heard of, the oldest first

    async def push(
        self, body: PredictBodyInternal, request: fastapi.Request, username: str | None
    ) -> tuple[bool, str, str]:
        """See gradio's `Queue.push`."""
        if len(self) >= self.max_size:
            return False, BUSY, "queue_full"
        if flaw := self._flaw(body):
            return False, flaw, "error"
        if self._is_greedy(body.session_hash, client_of(request.client)):
            return False, GREEDY, "queue_full"
        answer = await super().push(body=body, request=request, username=username)
        for queue in self.event_queue_per_concurrency_id.values():
            _take_turns(queue)
        if body.session_hash:
            self._note(body.session_hash)
        return answer

    def send_message(self, event: Event, event_message: EventMessage) -> None:
        """See gradio's `Queue.send_message`."""
        if event.session_hash in self.pending_messages_per_session:  # else nobody waits for it any more
            super().send_message(event, event_message)
            self._note(event.session_hash)
            if isinstance(event_message, ProcessCompletedMessage):
                self.forget()

    def forget(self) -> None:
        """Drop answers that nobody fetched, and sessions that are done."""
        busy = {event.session_hash for event in self._events()}
        idle = [session for session in self._sessions if session not in busy]
        messages = self.pending_messages_per_session
        unread = [session for session in idle if session in messages and not messages[session].empty()]
        oldest = time.monotonic() - IDLE_LIVE
        expired = [session for session in idle if self._sessions[session] < oldest]
        for session in {*unread[: max(0, len(unread) - UNREAD)], *idle[: max(0, len(idle) - IDLE)], *expired}:
            self._sessions.pop(session, None)
            messages.pop(session, None)
            self.pending_event_ids_session.pop(session, None)

    def _note(self, session: str) -> None:
        self._sessions[session] = time.monotonic()
        self._sessions.move_to_end(session)

    def _flaw(self, body: PredictBodyInternal) -> str | None:
        """Return what is wrong with the form of a call: gradio would log it, or keep it for as long as it waits."""
        function = self.blocks.fns.get(body.fn_index)
        if function is None or len(body.data) != len(function.inputs):
            return "There is no such function, or it takes another number of values; see the API's description."
        if len(body.session_hash or "") > LONGEST_SESSION:
            return f"A session's name has at most {LONGEST_SESSION} characters."
        if any(len(text) > LONGEST_TEXT for text in _texts([body.data, body.event_data])):
            return f"A value has at most {LONGEST_TEXT} characters."
        return None

    def _is_greedy(self, session: str | None, client: str) -> bool:
        events = list(self._events())
        of_client = sum(_client(event) == client for event in events)
        of_session = sum(event.session_hash == session for event in events)
        return of_client >= MAX_OF_CLIENT or of_session >= MAX_OF_SESSION

    def _events(self) -> Iterator[Event]:
        for queue in self.event_queue_per_concurrency_id.values():
            yield from queue.queue
        for events in self.active_jobs:
            yield from events or ()


def _take_turns(queue: EventQueue) -> None:
    """Order what waits: the first of every client, then the second of each, and so on."""
    turns: Counter[str] = Counter()
    ranked = []
    for event in queue.queue:
        client = _client(event)
        ranked.append((turns[client], event))
        turns[client] += 1
    queue.queue[:] = [event for _, event in sorted(ranked, key=lambda pair: pair[0])]


def _texts(value: object) -> Iterator[str]:
    """Go through all strings of a JSON value, which may be nested too deeply for recursion."""
    values = [value]
    while values:
        value = values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            values += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            values += value


def _client(event: Event) -> str:
    return client_of(event.request.client)
