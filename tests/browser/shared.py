"""One Chromium with its cache for all browser tests that follow each other: the pages' scripts are read and compiled once."""

from __future__ import annotations

import os

import pytest
from playwright.sync_api import BrowserContext, sync_playwright

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
UNSAFE = "DJANGO_ALLOW_ASYNC_UNSAFE"
"""The browser's driver runs an event loop in this thread, which Django's guard has to be told about."""


class Chromium:
    """The browser, and the profile in which every test opens pages of its own."""

    def __init__(self) -> None:
        self._unsafe_before = os.environ.get(UNSAFE)
        os.environ[UNSAFE] = "true"
        self._play = sync_playwright().start()
        self._browser = self._play.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        self.context: BrowserContext = self._browser.new_context(viewport={"width": 1280, "height": 900})
        self.context.set_default_timeout(10_000)

    def close(self) -> None:
        """Ends it; the thread has no event loop of it afterwards."""
        self._browser.close()
        self._play.stop()
        del os.environ[UNSAFE]
        if self._unsafe_before is not None:
            os.environ[UNSAFE] = self._unsafe_before


_open: list[Chromium] = []


def profile() -> BrowserContext:
    """Of the browser that is open, or of a new one."""
    if not _open:
        _open.append(Chromium())
    return _open[-1].context


def close_unless_wanted(nextitem: pytest.Item | None) -> None:
    """Ends the browser before a test that does not ask for it: that one may have an event loop of its own."""
    if _open and "chromium" not in getattr(nextitem, "fixturenames", ()):
        _open.pop().close()
