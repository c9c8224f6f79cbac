"""A select that searches: what is typed reaches rows that it does not offer, Enter there sends nothing; filters fit a phone."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from r1platform.models import Project
from tests.browser.signed_in import Site
from tests.training_app.rows import make_run, make_version
from training_app import search_fields
from training_app.models import PhaseRun

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
LIMIT_MS = 20_000


def test_a_search_reaches_what_is_not_offered(site: Site, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_fields, "NUM_OFFERED", 2)
    first, *_others = [make_version(project) for _ in range(4)]
    page = site.open(f"{reverse('run-new')}?phase=cold_start")
    choice, search = page.locator("#id_dataset_version"), page.locator("[name=dataset_version_search]")
    expect(choice.locator("option")).to_have_count(3)
    search.fill("sums v1")
    expect(choice).to_have_value(str(first.pk), timeout=LIMIT_MS)
    search.press("Enter")
    search.fill("")
    expect(choice.locator("option")).to_have_count(3, timeout=LIMIT_MS)
    expect(choice).to_have_value(str(first.pk))
    assert reverse("run-new") in page.url and not PhaseRun.objects.exists()


def test_filters_fit_a_phone_whatever_is_their_longest_choice(site: Site, project: Project, alice: User) -> None:
    make_run(project, alice)
    site.page.set_viewport_size({"width": 390, "height": 700})
    page = site.open(reverse("run-list"))
    page.evaluate("for (const one of document.querySelectorAll('.filters select')) one.append(new Option('a long name '.repeat(9)))")
    boxes = [one.bounding_box() for one in page.locator(".filters select").all()]
    assert len(boxes) == 4
    assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
