"""Photograph a running demo for the README: python -m tools.make_screenshots http://127.0.0.1:7860"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DOCS = Path(__file__).resolve().parents[1] / "docs"
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
# The browser as root, in a closed network: no sandbox, and no calls home.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    """Run the command."""
    from playwright.sync_api import sync_playwright  # only where pictures are made

    DOCS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, theme, viewport, whole in (
            ("demo-light", "light", DESK, False),
            ("demo-dark", "dark", DESK, False),
            ("demo-phone", "light", PHONE, True),
        ):
            page = _open(browser, theme, viewport)
            page.locator(".example", has_text="Cardiomegaly and effusion").click()
            page.wait_for_selector(".reading")
            page.locator(".points label", has_text="Youden").click()
            page.mouse.move(0, 0)
            page.wait_for_timeout(800)
            _save(page.screenshot(full_page=whole), name)
        page = _open(browser, "light", DESK)
        page.get_by_role("tab", name="The model").click()
        page.wait_for_selector(".figures, .absent")
        page.wait_for_timeout(800)
        _save(page.screenshot(), "demo-model")
        browser.close()
    print(f"written: {DOCS}")


def _open(browser: Browser, theme: str, viewport: dict[str, int]) -> Page:
    page = browser.new_page(viewport=viewport)
    page.goto(f"{sys.argv[1]}/?__theme={theme}")
    page.wait_for_selector(".example")
    return page


def _save(screenshot: bytes, name: str) -> None:
    """With 256 colours a screenshot weighs a third, and looks the same."""
    with Image.open(io.BytesIO(screenshot)) as image:
        image.convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE).save(DOCS / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
