"""The keyboard in a browser: rows by j and k, places by g and a letter, the list of all of it by a question mark."""

from __future__ import annotations

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from r1platform.models import Project
from tests.browser.signed_in import Site
from tests.pages.b_rows import make_run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_a_list_is_walked_and_left_without_a_mouse(site: Site, project: Project) -> None:
    runs = [make_run(project, name=f"run {number}") for number in range(3)]
    page = site.open(reverse("run-list"))
    links = [page.locator(f"main tbody a[href='{reverse('run-detail', args=[run.pk])}']").first for run in reversed(runs)]
    page.keyboard.press("j")
    expect(links[0]).to_be_focused()
    page.keyboard.press("j")
    expect(links[1]).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("k")
    expect(links[0]).to_be_focused()
    page.keyboard.press("/")
    search = page.locator("main input[type=search]")
    expect(search).to_be_focused()
    page.keyboard.type("jk?")
    expect(search).to_have_value("jk?")
    search.blur()
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keyboard")
    expect(keys).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("n")
    page.wait_for_url(f"**{reverse('node-list')}")
