"""A hook of MkDocs: links from a page to a file outside docs/, which the site does not hold, become its name."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# [text](../file), and not a link within docs/.
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace links to files of the repository by the text of the link and the file's path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return OUTSIDE.sub(_name, markdown)


def _name(link: re.Match[str]) -> str:
    text, path = link.groups()
    if not (ROOT / path).exists():
        raise FileNotFoundError(f"docs link to {path}, which does not exist")
    return text if path in text.strip("`") else f"{text} (`{path}`)"
