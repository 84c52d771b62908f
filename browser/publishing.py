"""A model package -> the page that reads films in the browser, in a folder or in a static Space."""

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi

from browser.writing import NETWORKS, require_scripts, space_files, static_files
from cxrfpn.data.sources import open_source
from cxrfpn.publishing.contents import PublishError
from cxrfpn.publishing.halving import export_halved
from cxrfpn.publishing.quantising import export_int8
from cxrfpn.publishing.repository import compare
from loading_cxrfpn import load_pipeline


def page_files(run: Path, source: str | None) -> tuple[dict[str, bytes], str]:
    """Return the page's files as path -> content, and what was measured of the network in 8-bit integers.

    Args:
        run: a model package.
        source: of labelled radiographs, as `open_source` names them, to calibrate and measure a network in 8-bit
            integers; None leaves that network out.

    Raises:
        PublishError: the package or the scripts cannot be used, or the network loses too much.
    """
    require_scripts()
    lines = ""
    with TemporaryDirectory() as folder:
        paths = {precision: Path(folder) / name for precision, name in NETWORKS.items()}
        pipe = load_pipeline(str(run))
        export_halved(pipe, paths["fp16"])
        if source is not None:
            pipe = load_pipeline(str(run))
            lines = export_int8(pipe, open_source(source, findings=pipe.model.findings), paths["int8"])
        networks = {precision: path.read_bytes() for precision, path in paths.items() if path.is_file()}
        return static_files(pipe, networks), lines


def publish_page(files: Mapping[str, bytes], repo: str, private: bool, dry_run: bool) -> str:
    """Bring the page's static Space up to date; say what was done, or what would be.

    Args:
        files: of the page, path -> content.
        repo: `org/name`.

    Raises:
        PublishError: the Hub refuses or cannot be reached; nothing is half written.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise PublishError(f"{repo}: is no name of a Space; it is org/name")
    api = HfApi()
    update = compare(api, "space", repo, space_files(files, repo), private, sdk="static")
    if dry_run:
        return update.listing()
    update.create(api)
    return (
        f"{update.listing()}\nspace {repo}: commit {update.push(api, 'Show the page that reads films in the browser')}"
    )
