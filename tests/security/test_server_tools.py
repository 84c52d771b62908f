"""The demo's tools for assistants: asked by a real client, with the API's limits, and no way to the server's files."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo import assistants
from demo.assistants import AssistantsError, take_files
from demo.examples import FOLDER, load_examples
from tests.servers import Demo, Visitor, running_demo

pytest.importorskip("mcp")
EXAMPLE = FOLDER / load_examples()[1]["file"]
CONTENT = "data:image/png;base64," + base64.b64encode(EXAMPLE.read_bytes()).decode()


@pytest.fixture(scope="module")
def demo(package: Path, tmp_path_factory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "tmp").mkdir()
    with running_demo(package, folder, TMPDIR=str(folder / "tmp"), CXR_MCP="1") as demo:
        yield demo


def ask(demo: Demo, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """Open a session as an assistant does; return its list of tools, and the answer of each call."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def run() -> list[Any]:
        client = streamablehttp_client(f"{demo.address}/gradio_api/mcp/")
        async with client as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            return [await session.list_tools(), *[await session.call_tool(*call) for call in calls]]

    return asyncio.run(run())


def test_an_assistant_gets_the_findings_that_the_api_gives(demo):
    arguments = {"image": CONTENT, "age": 63, "sex": "F", "view_position": "PA", "operating_point": "youden"}
    tools, answer, rows = ask(demo, ("predict", arguments), ("predict_batch", {"images": [CONTENT, CONTENT]}))
    assert {tool.name for tool in tools.tools} == {"predict", "predict_batch"}  # nothing of the page itself
    assert not answer.isError, answer
    findings = json.loads(answer.content[0].text)
    scores = {finding["label"]: finding["score"] for finding in findings["findings"]}
    visitor = Visitor(demo, "10.0.0.2")
    events = visitor.call("predict", visitor.upload(EXAMPLE), 63, "F", "PA", "youden")
    expected = json.loads(events.partition("event: complete\ndata: ")[2].partition("\n")[0])[0]
    assert scores == {finding["label"]: finding["score"] for finding in expected["findings"]}
    assert findings["patient"] == {"age": 63, "sex": "F", "view_position": "PA"}
    assert not rows.isError and [len(row["findings"]) for row in json.loads(rows.content[0].text)] == [14, 14]


@pytest.mark.parametrize(
    "image",
    [
        str(EXAMPLE), "http://127.0.0.1:9/a.png", "file:///etc/passwd", None, [CONTENT],
        {"path": str(EXAMPLE), "meta": {"_type": "gradio.FileData"}},
        {"path": str(EXAMPLE), "url": CONTENT, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}},
    ],
)  # fmt: skip
def test_neither_files_of_the_server_nor_addresses_are_read(demo, image):
    """gradio's own client, which runs in the server, would upload any file of this machine that it is given."""
    with pytest.raises(ValueError, match="neither paths nor addresses"):
        take_files({"image": image})
    with pytest.raises(ValueError, match="neither paths nor addresses"):
        take_files({"images": [CONTENT, image]})
    _, answer = ask(demo, ("predict", {"image": image}))
    assert answer.isError and "findings" not in answer.content[0].text


def test_a_file_hidden_in_another_argument_is_refused():
    hidden = {"path": str(EXAMPLE), "meta": {"_type": "gradio.FileData"}}
    for value in (hidden, [hidden]):
        with pytest.raises(ValueError, match="operating_point: give a single value"):
            take_files({"image": CONTENT, "operating_point": value})


def test_what_tools_write_lies_in_the_folder_that_is_swept(demo):
    ask(demo, ("predict", {"image": CONTENT}))
    assert not list((demo.uploads.parent / "tmp").iterdir())


def test_requests_to_tools_are_limited(demo):
    url = f"{demo.address}/gradio_api/mcp/"
    head = {"Accept": "application/json, text/event-stream"}
    assert httpx.post(url, content=b"a" * (17 * 2**20), headers=head).status_code == 413
    assert httpx.post(url, content=b"[" * 5000, headers=head).status_code == 413
    assert httpx.post(url, json={}, headers={**head, "Origin": "https://evil.example"}).status_code == 403
    for closed in ("sse", "messages/", "schema", "http"):
        assert httpx.get(f"{url}{closed}").status_code == 404


def test_tools_are_off_unless_they_are_asked_for(monkeypatch):
    monkeypatch.delenv("CXR_MCP", raising=False)
    monkeypatch.setenv("GRADIO_MCP_SERVER", "true")  # gradio's own switch knows no limits
    assert not assistants.are_wanted()
    monkeypatch.setenv("CXR_MCP", "1")
    assert assistants.are_wanted()
    monkeypatch.setitem(__import__("sys").modules, "mcp", None)
    with pytest.raises(AssistantsError, match="pip install"):
        assistants.are_wanted()
