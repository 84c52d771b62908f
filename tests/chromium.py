"""Chromium for the tests of pages: where it is, and how it starts."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Chromium as root, in a closed network: no sandbox, and no calls home.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@contextmanager
def running_browser() -> Iterator[Any]:
    """Run Chromium; the test is skipped where it is missing."""
    if CHROMIUM is None:
        pytest.skip("no browser: install Chromium (Debian: apt-get install chromium) to test the page")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
