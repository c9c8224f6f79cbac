"""Forms of settings in a browser: a profile or preset fills its group and is named by what stands there; rates follow."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from model_core.config.run import PROFILES
from tests.browser.signed_in import Site

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
LIMIT_MS = 20_000
"""A machine that does other work too takes its time to answer; nothing is waited for longer than needed."""


def drawn(page: Page, kind: str, lowest: float) -> Any:
    """The factors of a kind of weight, once its plot begins with `lowest`."""
    line = "document.querySelector('[data-rates] [data-plot]').data?.find((one) => one.name === kind)?.y"
    found = page.wait_for_function(f"([kind, low]) => {{ const y = {line}; return y?.includes(low) ? y : null; }}", arg=[kind, lowest])
    return found.json_value()


def test_profiles_presets_and_rates(site: Site) -> None:
    page = site.open(f"{reverse('run-new')}?phase=reinforcement")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    profile, model = page.get_by_label("Profile"), page.locator("#preset-model")
    expect(profile).to_have_value("article")
    expect(model).to_have_value("tiny")
    profile.select_option("r1")
    weights = {name: page.locator(f"[name='config-reward.weights.{name}']") for name in (*PROFILES["article"], *PROFILES["r1"])}
    for name, field in weights.items():
        expect(field).to_have_value(str(int(PROFILES["r1"][name])) if name in PROFILES["r1"] else "")
    weights["format"].fill("0.5")
    expect(profile).to_have_value("")
    weights["format"].fill("1")
    expect(profile).to_have_value("r1")
    note = page.locator("[data-rates] [data-note]")
    expect(note).to_contain_text("Every part learns at the full rate", timeout=LIMIT_MS)
    page.locator("[name='config-phase_config.layer_lr_decay']").fill("0.5")
    expect(note).to_be_empty(timeout=LIMIT_MS)
    assert drawn(page, "attention", 0.25) == [None, 0.25, 0.5, 1, None]
    model.select_option("small")
    page.wait_for_function("() => document.querySelector('[data-rates] [data-plot]').data?.[0].x.length === 8")
    page.locator("[name='config-phase_config.layer_lr_decay']").fill("7")
    expect(note).to_contain_text("when it is mended", timeout=LIMIT_MS)
