"""A preparation followed in the browser: the funnel counts on, and an upload that is too large is not sent."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from r1platform.models import Project
from tests.browser.signed_in import Site
from tests.training_app.rows import make_version
from training_app.models import DatasetVersion

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def counts(num_read: int) -> dict[str, Any]:
    step = {"filter": "length", "kept": num_read - 30, "dropped": 30, "reasons": {"too long": 30}, "noted": {}, "rewritten": 0,
            "examples": []}  # fmt: skip
    return {"num_read": num_read, "num_rows": num_read - 30, "num_held_out": 0, "bad_rows": {"num": 0, "reasons": {}, "examples": []},
            "funnel": [step]}  # fmt: skip


def test_the_funnel_counts_on_and_an_upload_over_the_limit_stays_here(site: Site, project: Project, settings: Any) -> None:
    version = make_version(project, state="preparing", config={"source": "jsonl"}, counts=counts(1000))
    page = site.open(reverse("version-detail", args=[version.dataset_id, version.number]))
    row = page.locator("tr", has_text="Length").first
    expect(row).to_contain_text("970")
    DatasetVersion.objects.filter(pk=version.pk).update(counts=counts(5000))
    site.send(type="version", version=version.pk)
    expect(row).to_contain_text("4\u202f970")
    expect(page.locator("[data-part=progress]")).to_contain_text("5\u202f000 rows read")
    settings.R1_MAX_UPLOAD_BYTES = 10
    page = site.open(reverse("dataset-new"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    page.set_input_files("[data-upload] input[type=file]", {"name": "a.jsonl", "mimeType": "x/y", "buffer": b"x" * 2048})
    page.click("[data-upload] button.primary")
    expect(page.locator("[data-upload-words]")).to_have_text("“a.jsonl” has 2.0\u202fKiB; at most 10\u202fB are taken.")
    assert "POST" not in asked
