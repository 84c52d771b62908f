"""The body of a request while it arrives: how large it may be, how slow, and what it may consist of."""

import asyncio
import time
from collections.abc import Callable

from fastapi import HTTPException
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Message, Receive

from demo.clients import LEAST_FILE_BYTES
from demo.uploads import MAX_BATCH_BYTES

# The page sends all files of a batch in one request; each comes with a few lines of its own.
MAX_UPLOAD_BYTES = MAX_BATCH_BYTES + 8 * 2**20
MAX_JSON_BYTES = 2**20
# JSON that holds files, for the tools of assistants: it is in memory as a whole.
MAX_TOOLS_BYTES = 16 * 2**20
# A call with 200 files has some 2,500 values in 410 brackets. A megabyte of "[[],[],..." takes seconds and gigabytes.
MAX_VALUES, MAX_BRACKETS = 20_000, 800
# A body must begin, and go on, within so many seconds, and come at so many bytes a second: slow ones hold a place.
PATIENCE, SLOWEST = 20.0, 16 * 2**10


class Body:
    """An ASGI `receive` that stops a body which breaks a limit, before anything of it is parsed.

    Args:
        receive: where the body comes from.
        most: bytes that it may have.
        check: called with every piece; raises HTTPException where the piece breaks a limit.
        clock: seconds, rising.
    """

    def __init__(
        self,
        receive: Receive,
        most: int,
        check: Callable[[bytes], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._receive = receive
        self._most = most
        self._check = check
        self._clock = clock
        self._began = clock()
        self._size = 0
        self._ended = False

    async def __call__(self) -> Message:
        """Receive the next message of the body."""
        if self._ended:  # what follows is the client's leaving, which may take as long as the answer does
            return await self._receive()
        try:
            async with asyncio.timeout(PATIENCE):
                message = await self._receive()
        except TimeoutError:
            raise too_slow() from None
        if message["type"] == "http.request":
            piece = message.get("body", b"")
            self._size += len(piece)
            self._ended = not message.get("more_body", False)
            if self._size > self._most:
                raise too_large(self._most)
            if self._clock() - self._began > PATIENCE + self._size / SLOWEST:
                raise too_slow()
            self._check(piece)
        return message


class JsonCheck:
    """Bound the number of values in JSON and their depth, by counting marks in its bytes."""

    def __init__(self) -> None:
        self._values = self._brackets = 0

    def __call__(self, piece: bytes) -> None:
        """Take a piece of the body."""
        brackets = piece.count(b"[") + piece.count(b"{")
        self._brackets += brackets
        self._values += brackets + piece.count(b",")
        if self._values > MAX_VALUES or self._brackets > MAX_BRACKETS:
            raise HTTPException(413, "The JSON holds too many values. Send fewer files at a time.")


class ToolsCheck(JsonCheck):
    """The same for JSON that holds files, which count towards the client's uploads.

    Args:
        charge: called with bytes that count.
    """

    def __init__(self, charge: Callable[[int], None]):
        super().__init__()
        self._charge = charge

    def __call__(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._charge(len(piece))
        super().__call__(piece)


class UploadCheck:
    """Let through files only, and count what they weigh.

    gradio keeps form fields that are no files in memory, of any size.

    Args:
        content_type: the request's header.
        charge: called with bytes that count towards the client's uploads.

    Raises:
        HTTPException: 400, the request is no form of files.
    """

    def __init__(self, content_type: str, charge: Callable[[int], None]):
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise _no_files()
        self._charge = charge
        self._name, self._value, self._is_file = b"", b"", False
        try:
            self._parser = MultipartParser(options[b"boundary"], {
                "on_part_begin": self._begin,
                "on_header_field": self._add_name,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
            })  # fmt: skip
        except MultipartParseError:
            raise _no_files() from None

    def __call__(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._charge(len(piece))
        try:
            self._parser.write(piece)
        except MultipartParseError:
            raise _no_files() from None

    def _begin(self) -> None:
        self._name, self._value, self._is_file = b"", b"", False

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._is_file = b"filename" in parse_options_header(self._value)[1]
        self._name = self._value = b""

    def _end_headers(self) -> None:
        if not self._is_file:
            raise _no_files()
        self._charge(LEAST_FILE_BYTES)


def too_large(most: int) -> HTTPException:
    """Return the refusal of a body of more than `most` bytes."""
    return HTTPException(413, f"The request is larger than {most >> 20} MB. Send less at a time.")


def too_slow() -> HTTPException:
    """Return the refusal of a body that does not come."""
    return HTTPException(408, "The request came too slowly. Send it again, with fewer files at a time.")


def _no_files() -> HTTPException:
    return HTTPException(400, "An upload is a form of files (multipart/form-data), and of nothing else.")
