"""The API as tools for assistants, by the Model Context Protocol; switched on by CXR_MCP=1."""

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import gradio as gr
from gradio.processing_utils import save_base64_to_cache
from gradio.utils import get_upload_folder

from demo.uploads import MAX_FILES

if TYPE_CHECKING:
    from mcp.types import TextContent

# The arguments of the endpoints that are files: one, and a list of them.
FILE, FILES = "image", "images"
CONTENT = {"type": "string", "description": "the content of a file, as a data: URL in base64"}
SCHEMAS = {FILE: CONTENT, FILES: {"type": "array", "items": CONTENT, "maxItems": MAX_FILES}}


class AssistantsError(OSError):
    """Raised when the tools are asked for and cannot be had; the message is one line."""


def are_wanted() -> bool:
    """Return whether to offer the tools.

    Raises:
        AssistantsError: the package that it takes is not installed.
    """
    if os.environ.get("CXR_MCP", "") in ("", "0"):
        return False
    try:
        import mcp  # noqa: F401
    except ImportError:
        raise AssistantsError("CXR_MCP needs the package mcp: pip install -e '.[mcp]', or leave CXR_MCP out") from None
    return True


def connect(page: gr.Blocks, host: str, port: int) -> None:
    """Let the tools ask this server's own API, so that its limits hold for them, and take files from requests only.

    gradio would find the server by what a request says of its host, and upload any file of this machine that a request
    names by its path.

    Args:
        page: mounted with its tools.
        host: where the server listens.
        port: the same.
    """
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    tools = page.mcp_server_obj
    tools._local_url = f"http://[{here}]:{port}/" if ":" in here else f"http://{here}:{port}/"
    tools.get_input_schema = _with_files(tools.get_input_schema)
    tools.convert_strings_to_filedata = lambda arguments, _: take_files(arguments)
    tools.postprocess_output_data = lambda answers, _: [_as_text(answer) for answer in answers]


def take_files(arguments: Mapping[str, object]) -> dict[str, object]:
    """Write the files of a tool's arguments down, and return the arguments with what stands for them.

    Raises:
        ValueError: a file is given otherwise than by its content, or anything else is no single value.
    """
    taken = dict(arguments)
    if FILE in taken:
        taken[FILE] = _take(taken[FILE])
    if FILES in taken:
        files = taken[FILES]
        taken[FILES] = [_take(file) for file in (files if isinstance(files, list) else [files])]
    if nested := [key for key in taken if key not in (FILE, FILES) and isinstance(taken[key], (dict, list))]:
        raise ValueError(f"{', '.join(nested)}: give a single value")
    return taken


def _with_files(get_schema: Callable[..., tuple[dict[str, dict], list]]) -> Callable[..., tuple[dict[str, dict], list]]:
    """Describe files as `take_files` takes them; gradio asks for an address, and its schema of a list is broken."""

    def get_schema_with_files(*arguments: object) -> tuple[dict[str, dict], list]:
        schema, positions = get_schema(*arguments)
        schema["properties"] |= {name: form for name, form in SCHEMAS.items() if name in schema["properties"]}
        return schema, positions

    return get_schema_with_files


def _as_text(answer: object) -> "TextContent":
    """Return an answer as a text of JSON; gradio would write it as Python does."""
    from mcp.types import TextContent

    return TextContent(type="text", text=json.dumps(answer))


def _take(file: object) -> dict[str, object]:
    if not isinstance(file, str) or not file.startswith("data:"):
        raise ValueError("give a file by its content, as a data: URL in base64; neither paths nor addresses are read")
    return {"path": save_base64_to_cache(file, get_upload_folder()), "meta": {"_type": "gradio.FileData"}}
