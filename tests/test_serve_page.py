"""The chat page in a real headless Chromium: replies, cards, decisions, rules, and words that are markup elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from serving_helpers import Served

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def page(served: Served) -> Iterator[Any]:
    """The page, open in a browser that reports what goes wrong in it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make install")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on the path: install one of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page()
        opened.set_default_timeout(30_000)
        opened.wrong = []
        opened.asked = []
        opened.on("pageerror", lambda error: opened.wrong.append(str(error)))
        opened.on("request", lambda request: opened.asked.append(request.url))
        opened.goto(served.url)
        yield opened
        assert opened.wrong == []
        assert all(url.startswith((served.url, "data:")) for url in opened.asked)  # nothing from outside
        browser.close()


def say(page: Any, text: str) -> None:
    """Send a message and wait for its reply."""
    before = page.locator(".theirs details.decisions").count()
    page.fill("#text", text)
    page.press("#text", "Enter")
    page.locator(".theirs details.decisions").nth(before).wait_for(state="attached")


def test_a_conversation_shows_reply_cards_and_decisions(page: Any) -> None:
    assert "bundle" in page.locator("#about").text_content()
    for n in range(6):  # the toy model decides by itself whether to recommend
        say(page, "I loved The Matrix, what now?" if n == 0 else f"Another one, please ({n})")
        if page.locator(".card").count():
            break
    assert page.locator(".mine p").first.text_content() == "I loved The Matrix, what now?"
    assert page.locator(".theirs > p").first.text_content() not in ("", "…")
    assert "The Matrix = The Matrix (1999)" in page.locator(".theirs").first.text_content()
    decisions = page.locator("details.decisions").first.text_content()
    assert all(word in decisions for word in ("Decisions:", "recommend", "chat", "%"))
    card = page.locator(".card").first
    assert card.locator("h2").text_content() and "genre" in card.locator("dl").text_content()
    card.get_by_text("Why?").click()
    card.locator(".note").first.wait_for()
    assert "allowed of 12 items" in card.text_content()
    card.get_by_text("Seen").click()


def test_words_are_never_markup(page: Any) -> None:
    say(page, '<img src=x onerror="window.hacked=1"> <b>bold</b> <item:m01>')
    assert page.evaluate("window.hacked") is None and page.locator(".mine img, .mine b").count() == 0


def test_rules_hold_from_the_next_conversation_on(page: Any) -> None:
    page.evaluate("document.getElementById('rules').open = true")
    page.fill("#where", "colour=red")
    page.click("#again")
    page.get_by_text("The catalogue has no column 'colour'").wait_for()
    page.fill("#where", "genre=romance")
    page.click("#again")
    for _ in range(8):
        say(page, "Something else, please")
        if page.locator(".card").count():
            break
    assert {card.get_attribute("data-item") for card in page.locator(".card").all()} <= {"m10", "m11"}
    page.fill("#where", "")
