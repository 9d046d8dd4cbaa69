"""The pages, in a browser: they show what the server has checked, load nothing else, and work by keyboard."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from support.browser import shown, until
from support.served import Server, encoded

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.long

CARDS = "document.querySelectorAll('#images li').length"


def recent(browser: Browser, server: Server, **options: Any) -> AbstractContextManager[Page]:
    """The page of the last images, which may ask nobody but its server."""
    return shown(browser, f"{server.address}/recent", server.address, **options)


def faults(page: Page) -> str:
    """What axe finds; cards behind the fifth are like those before, and only take time."""
    page.evaluate("document.querySelectorAll('#images li:nth-child(n+6)').forEach((each) => each.remove())")
    found = Axe().run(page)
    return "" if found.violations_count == 0 else str(found.generate_report())


def test_the_last_images_are_shown_as_they_come(server: Server, browser: Browser) -> None:
    server.check(encoded(99, spot=120), "/v1/check?name=<b>bad</b>.png".replace("/b>", "b>"))
    server.check(b"no image", "/v1/check?name=broken.png")
    with recent(browser, server) as page:
        until(page, f"{CARDS} >= 2")
        assert page.locator("#images li").nth(1).locator(".name").inner_text() == "<b>bad<b>.png"
        assert "reject" in page.locator("#images li").nth(1).inner_text()
        assert "not an image file" in page.locator("#images li").nth(0).inner_text()
        assert page.locator("#chart .limit").count() == 1
        assert page.locator("#chart .dot.reject title").last.text_content()
        server.check(encoded(30), "/v1/check?name=new.png")
        until(page, "document.querySelector('#images .name').textContent === 'new.png'")
        until(page, "[...document.images].every((each) => each.naturalWidth > 0 || each.loading === 'lazy')")
        assert "not flagged" in page.locator("#state").inner_text()


def test_by_keyboard_and_paused(server: Server, browser: Browser) -> None:
    server.check(encoded(31))
    with recent(browser, server) as page:
        until(page, f"{CARDS} >= 1")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the images"
        for _ in range(3):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "pause"
        page.keyboard.press("Enter")
        assert page.locator("#pause").get_attribute("aria-pressed") == "true"


@pytest.mark.long
def test_axe_finds_nothing_in_light_and_dark(server: Server, browser: Browser) -> None:
    server.check(encoded(99, spot=120))
    for scheme in ("light", "dark"):
        with recent(browser, server, color_scheme=scheme) as page:
            until(page, f"{CARDS} >= 1")
            assert faults(page) == ""
            page.goto(f"{server.address}/")
            assert faults(page) == ""


def test_nothing_is_wider_than_a_phone(server: Server, browser: Browser) -> None:
    server.check(encoded(32), f"/v1/check?name={'long' * 40}.png")
    with recent(browser, server, viewport={"width": 320, "height": 640}) as page:
        until(page, f"{CARDS} >= 1")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        page.goto(f"{server.address}/")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
