"""A browser without a screen, for tests of the report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Names of the program, as Debian and others have it.

First the one that knows no windows: it opens a page in a third of the time.
"""

OPTIONS = ("--no-sandbox", "--in-process-gpu")
"""Without its sandbox, which containers do not allow: it opens pages that the tests made.

What a GPU would draw is drawn by a thread: a process for it makes each page a fifth more expensive.
"""

PATIENCE = 60_000
"""Milliseconds that a test waits for what must come: far more than it takes."""


def chromium() -> str | None:
    """Path of the browser, None without one."""
    return next((path for name in CHROMIUM if (path := shutil.which(name))), None)


LATE = """{
    const late = 50;
    const later = (act) => (event) => setTimeout(() => act(event), late);
    const listen = EventTarget.prototype.addEventListener;
    EventTarget.prototype.addEventListener = function (type, act, options) {
        const queued = ["hashchange", "popstate", "close", "resize", "scroll"].includes(type);
        listen.call(this, type, queued ? later(act) : act, options);
    };
    const frame = requestAnimationFrame;
    window.requestAnimationFrame = (act) => frame(later(act));
}"""
"""Events and frames that a browser may deliver after an action has returned come 50 ms later.

A test that does not wait for what they do, and would fail on a busy machine now and then, fails always.
"""


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser that ends with the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=OPTIONS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, file: Path, address: str = "", before: str = "", **options: Any
) -> Iterator[Page]:
    """A page from disk.

    ``address`` is the part from # on, ``before`` a script that runs before those of the page.
    """
    with shown(browser, f"file://{file}{address}", ("file:", "data:", "blob:"), before, **options) as page:
        yield page


@contextmanager
def shown(
    browser: Browser, address: str, asked: str | tuple[str, ...], before: str = "", **options: Any
) -> Iterator[Page]:
    """A page in a context of its own, on which nothing may go wrong until the block ends.

    It may ask for addresses alone that start with ``asked``.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    context.set_default_timeout(PATIENCE)
    context.add_init_script(LATE)
    if before:
        context.add_init_script(before)
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    page.on("dialog", lambda dialog: troubles.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: troubles.extend([request.url] * (not request.url.startswith(asked))))
    try:
        page.goto(address)
        yield page
        assert troubles == []
    finally:
        context.close()


def until(page: Page, condition: str) -> None:
    """Wait for a condition in JavaScript.

    Playwright's own waiting evaluates a condition that is not yet true by ``eval``, which the report forbids.
    """
    end = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)
