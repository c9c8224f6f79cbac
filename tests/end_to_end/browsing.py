"""A real browser on a platform of a test's own: nobody is signed in yet, and what it complains about fails the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

from tests.end_to_end.running import Platform


@contextmanager
def browsing(platform: Platform) -> Iterator[Page]:
    """One page; what takes longer than 20 s has failed unless it is waited for with a time of its own."""
    errors: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(base_url=platform.read()["base_url"], viewport={"width": 1280, "height": 900})
        opened.set_default_timeout(20_000)
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        yield opened
        browser.close()
    assert errors == []


def sign_in(page: Page, platform: Platform, project: str) -> None:
    """By the link that `up` prints for a person, and makes the first project."""
    page.goto(platform.read()["url"])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Name of the project").fill(project)
    page.get_by_role("button", name="Make the project").click()
