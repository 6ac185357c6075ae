"""Real headless Chromium for tests of pages, and an account of whatever a page complained about or asked for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# A machine for tests may be closed to the outside; without these the browser itself looks for its maker's hosts.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium() -> Iterator:
    """A running browser; the test is skipped, saying why, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install '.[test]'")
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page from disk, opened in a window of its own. `requests`: what it asked for; `complaints`: its console and errors."""

    def __init__(self, browser, file: Path, width: int = 1280, **options):
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page = browser.new_context(viewport={"width": width, "height": 900}, **options).new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())
