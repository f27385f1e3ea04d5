"""A real browser, which waits as long as a busy machine needs."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 250_000.0
"""Milliseconds to wait for what must happen at once; Playwright waits for 30 s, and `expect` for 5 s."""

needs_browser = pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("CI"), reason="needs Chromium: apt-get install chromium"
)


@contextlib.contextmanager
def open_browser() -> Iterator[BrowserContext]:
    """Start a browser for this block; each `new_page` of it has the longer timeouts."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        context = browser.new_context()
        context.set_default_timeout(PATIENCE)
        yield context
        browser.close()
