"""A headless Chromium for tests of pages; tests that ask for it are skipped where none is installed."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

SLOW_MS = 300_000
"""Patience with a browser on a machine that is busy."""


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed: 'make browser' installs Debian's")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright drives the browser: pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"], timeout=SLOW_MS)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page that is open, with what it said on its console and what it asked the network for."""

    def __init__(self, browser: Any, address: str, width: int, dark: bool = False) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        scheme = "dark" if dark else "light"
        self._context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self._context.set_default_timeout(SLOW_MS)
        self.page = self._context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def draw_all(self, ready: str) -> None:
        """Scrolls through the page, again and again, until `ready` holds: things are drawn as they come near."""
        self.wait(ready, "window.scrollTo(0, (scrollY + 700) % document.documentElement.scrollHeight)")

    def wait(self, ready: str, meanwhile: str = "null") -> None:
        """Until `ready` holds; the page's policy forbids what playwright waits with."""
        patient_until = time.monotonic() + SLOW_MS / 1e3
        while time.monotonic() < patient_until:
            if self.page.evaluate(ready):
                return
            self.page.evaluate(meanwhile)
            self.page.wait_for_timeout(100)
        raise AssertionError(f"never: {ready}")
