"""What gradio would remember of its visitors, and this demo does not."""

import asyncio
from copy import copy

import gradio as gr
from gradio.routes import file_upload_statuses
from gradio.state_holder import SessionState, StateHolder

EVERY = 5.0  # seconds
# Uploads whose progress somebody may ask for.
MAX_UPLOADS = 1000


class NoSessions(StateHolder):
    """Keep nothing of a session: every call begins with the page as it was built."""

    def __getitem__(self, session_id: str) -> SessionState:
        return _Forgetful(self.blocks)


class _Forgetful(SessionState):
    """The state of one call. gradio would keep every value in it, radiographs too, for links to a session."""

    def __init__(self, blocks: gr.Blocks):
        self.blocks_config = copy(blocks.default_config)
        self.config_values: dict[int, object] = {}
        self.state_data: dict[int, object] = {}
        self._state_ttl: dict[int, object] = {}
        self.is_closed = False

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: object) -> None:
        pass


async def keep_forgetting(page: gr.Blocks) -> None:
    """Forget what is done, for as long as the server runs."""
    while True:
        await asyncio.sleep(EVERY)
        page._queue.forget()
        forget_uploads(page)


def forget_uploads(page: gr.Blocks) -> None:
    """Drop the names of uploads, which `sweeping` deletes, and all but the latest records of their progress."""
    for paths in page.temp_file_sets:
        paths.clear()
    signals = file_upload_statuses._signals
    for upload in list(signals)[: max(0, len(signals) - MAX_UPLOADS)]:
        del signals[upload]
        file_upload_statuses.stop_tracking(upload)
