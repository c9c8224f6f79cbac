"""Parts that pages share or that a row of samples is made of: nothing hidden without a sign, nothing over the text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from r1platform.models import Node, Project
from tests.browser.signed_in import Site
from tests.pages.b_rows import make_event, make_run
from training_app.models import PhaseRun

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def run(project: Project, node: Node) -> PhaseRun:
    made = make_run(project)
    make_event(made, node, 1, "rollouts", step=6, file="rollouts/6.jsonl.gz")
    return made


def completion(text: str, **values: Any) -> dict[str, Any]:
    plain = {"text": text, "reward": 0.5, "advantage": 0.1, "correct": False, "num_tokens": 9, "components": {}}
    return {**plain, **values}


def open_rollouts(site: Site, run: PhaseRun, completions: list[dict[str, Any]]) -> Page:
    answer = {"step": 6, "steps": [6], "groups": [{"prompt": "1+1=", "answer": "2", "completions": completions}]}
    site.page.route("**/rollouts/?step=6", lambda route: route.fulfill(json=answer))
    page = site.open(reverse("run-detail", args=[run.pk, "rollouts"]))
    expect(page.locator(".rollout").first).to_be_visible()
    return page


def test_a_group_says_how_many_of_its_samples_are_in_view_and_goes_on(site: Site, run: PhaseRun) -> None:
    page = open_rollouts(site, run, [completion(f"<think>{n}</think>{n}") for n in range(16)])
    words = page.locator("[data-range]")
    expect(words).to_have_text("1–4 of 16")
    back, on = page.locator("[data-back]"), page.locator("[data-on]")
    expect(back).to_have_attribute("aria-disabled", "true")
    on.focus()
    for seen in ("5–8 of 16", "9–12 of 16", "13–16 of 16"):
        page.keyboard.press("Enter")
        expect(words).to_have_text(seen)
    expect(on).to_have_attribute("aria-disabled", "true")
    back.click()
    expect(words).to_have_text("9–12 of 16")
    page.locator(".rollout-row").focus()
    page.keyboard.press("ArrowLeft")
    expect(words).not_to_have_text("9–12 of 16")


def test_equal_samples_are_shown_once_with_how_often(site: Site, run: PhaseRun) -> None:
    same = [completion("<think>a</think>1") for _ in range(12)]
    page = open_rollouts(
        site, run, [*same, completion("<think>a</think>1", reward=0.7), completion("2"), completion("3"), completion("4")]
    )
    expect(page.locator(".rollout")).to_have_count(5)
    expect(page.locator(".rollout .tag")).to_have_text(["×12"])
    expect(page.locator("[data-range]")).to_have_text("1–15 of 16")


def test_a_group_that_fits_needs_no_buttons(site: Site, run: PhaseRun) -> None:
    page = open_rollouts(site, run, [completion("1"), completion("2")])
    expect(page.locator("[data-range]")).to_be_hidden()


def test_a_refused_upload_leaves_only_the_refusal(site: Site) -> None:
    page = site.open(reverse("dataset-new"))
    page.set_input_files("[data-upload] input[type=file]", {"name": "a.exe", "mimeType": "x/y", "buffer": b"\x00\x01\x02"})
    page.click("[data-upload] button.primary")
    expect(page.locator(".field-error")).to_be_visible()
    expect(page.locator("[data-upload-words]")).to_have_text("")
    page.set_input_files("[data-upload] input[type=file]", {"name": "b.exe", "mimeType": "x/y", "buffer": b"\x00"})
    page.click("[data-upload] button.primary")
    expect(page.locator("[data-upload] button.primary")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("[data-upload-words]")).to_have_text("")
    assert site.errors and all("422" in error for error in site.errors)
    site.errors.clear()  # the browser tells of each refusal


def test_on_a_phone_the_tab_in_force_is_in_view_and_the_page_stays(site: Site, run: PhaseRun) -> None:
    site.page.set_viewport_size({"width": 390, "height": 700})
    page = site.open(reverse("run-detail", args=[run.pk, "history"]))
    expect(page.locator(".tabs [aria-current]")).to_be_in_viewport(ratio=1)
    assert page.evaluate("[scrollX, scrollY]") == [0, 0]


def test_the_copy_button_never_lies_over_the_code(site: Site, run: PhaseRun) -> None:
    for width in (1280, 390):
        site.page.set_viewport_size({"width": width, "height": 900})
        page = site.open(reverse("run-detail", args=[run.pk, "config"]))
        page.wait_for_selector("pre.code .code-copy")
        clear = page.evaluate(
            """() => [...document.querySelectorAll('pre.code')].map((pre) =>
              pre.querySelector('code').getBoundingClientRect().right <= pre.querySelector('.code-copy').getBoundingClientRect().left)"""
        )
        assert clear and all(clear), width


def test_notices_end_where_the_content_ends_and_icons_stand_beside_titles(site: Site) -> None:
    page = site.open("/styleguide/")
    edges = page.evaluate(
        """() => [...document.querySelectorAll('main .notice')].map((notice) =>
          notice.parentElement.getBoundingClientRect().right - notice.getBoundingClientRect().right)"""
    )
    assert edges and set(edges) == {0}
    page = site.open(reverse("dataset-new"))
    heights = page.evaluate(
        """() => [...document.querySelectorAll('.choice-form, .card.choice')].map((card) => {
          const [icon, title] = ['.icon', 'h2, b'].map((part) => card.querySelector(part).getBoundingClientRect());
          return Math.abs(icon.top + icon.height / 2 - title.top - title.height / 2);
        })"""
    )
    assert heights and all(apart <= 3 for apart in heights), json.dumps(heights)


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_a_table_that_scrolls_is_shaded_at_the_edge_that_hides_something(site: Site, scheme: Any) -> None:
    """Read from the picture: the edge differs from the ground where more follows, and is the ground where nothing does."""
    site.page.emulate_media(color_scheme=scheme)
    page = site.open("/styleguide/")
    page.evaluate(
        """() => {
          const frame = document.createElement('div');
          frame.id = 'probe';
          frame.className = 'table-frame';
          frame.style.setProperty('width', '200px');
          frame.style.setProperty('height', '40px');
          const wide = document.createElement('div');
          wide.style.setProperty('width', '600px');
          wide.style.setProperty('height', '20px');
          frame.append(wide);
          document.querySelector('main').prepend(frame);
        }"""
    )

    def edges() -> tuple[bytes, bytes, bytes]:
        box = page.locator("#probe").bounding_box()
        assert box is not None
        at = [box["x"], box["x"] + box["width"] / 2, box["x"] + box["width"] - 2]
        left, middle, right = (page.screenshot(clip={"x": x, "y": box["y"] + 4, "width": 2, "height": 8}) for x in at)
        return left, middle, right

    left, middle, right = edges()
    assert left == middle != right
    page.evaluate("() => { document.getElementById('probe').scrollLeft = 9999; }")
    left, middle, right = edges()
    assert left != middle == right


def test_a_preset_fills_in_the_nested_settings_too(site: Site, node: Node) -> None:
    page = site.open(reverse("run-new") + "?phase=cold_start")
    page.locator("#preset-model").select_option("v2_lite", force=True)
    for name, value in (("hidden_size", "2048"), ("rope_scaling.factor", "40"), ("scoring_func", "softmax")):
        field = page.locator(f'[name$="model.{name}"]')
        expect(field).to_have_value(value)
