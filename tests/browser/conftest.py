"""What the tests of the page in the browser share: Node, its scripts, a folder of the page, a server, a browser."""

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BROWSER = Path(__file__).resolve().parents[2] / "browser"


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node; the test is skipped where it, or what npm installs, is missing."""
    path = shutil.which("node") or ""
    if not path:
        pytest.skip("Node is not installed (Debian: apt-get install nodejs npm): the page in the browser is not tested")
    if not (BROWSER / "node_modules").is_dir():
        pytest.skip("the page's libraries are not installed: run npm ci in browser/")
    return path


@dataclass
class Site:
    """A folder of the page as a server hands it out; `asked` are the paths that browsers asked it for."""

    folder: Path
    address: str
    server: http.server.ThreadingHTTPServer
    asked: list[str] = field(default_factory=list)


def serve(folder: Path) -> Site:
    """Hand a folder out on a free port of loopback."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            site.asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    site = Site(folder, f"http://127.0.0.1:{server.server_port}", server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return site


@pytest.fixture(scope="session")
def make_site(tmp_path_factory) -> Iterator[Callable[[Path], Site]]:
    """Write the page of a package, and hand it out."""
    if not (BROWSER / "build" / "page.js").is_file():
        pytest.skip("the page's scripts are not built: make scripts builds them, which needs Node")
    from browser.publishing import page_files
    from browser.writing import write_folder

    sites = []

    def make(package: Path) -> Site:
        folder = tmp_path_factory.mktemp("site") / "page"
        files, _ = page_files(package, None)
        write_folder(files, folder)
        sites.append(serve(folder))
        return sites[-1]

    yield make
    for site in sites:
        site.server.shutdown()


@pytest.fixture(scope="session")
def site(make_site, package: Path) -> Site:
    """The page of the tiny network."""
    return make_site(package)


@pytest.fixture
def page(browser, site):
    """The page, opened in a browser without a memory; nothing of the network may be asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.problems, asked = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("dialog", lambda dialog: page.problems.append(f"dialog: {dialog.message}"))
    context.on("request", lambda request: asked.append(request.url))
    page.goto(site.address)
    page.wait_for_selector(".example")
    yield page
    context.close()
    assert not page.problems
    assert all(url.startswith((site.address, "data:", "blob:")) for url in asked)
