"""The browser and its signed-in pages, for every test of pages here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import BrowserContext

from tests.browser import shared
from tests.browser.signed_in import Site


@pytest.fixture
def chromium() -> BrowserContext:
    """The profile of the browser; `tests/conftest.py` ends it after the last test that asks for this."""
    return shared.profile()


@pytest.fixture
def site(chromium: BrowserContext, live_server: Any, alice: User, project: Any) -> Iterator[Site]:
    made = Site(chromium, live_server.url, alice)
    yield made
    made.leave()
    assert made.errors == []
