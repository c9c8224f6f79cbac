"""What charts say of points they cannot draw, of windows without points, of names that no chart has; no line invented."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from r1platform.models import Node, Project
from tests.browser.signed_in import Site
from tests.pages.b_rows import make_event, make_run
from tests.training_app.rows import put_series
from training_app.models import MetricSeries, PhaseRun

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
HELD = {0: 0.64, 24: 0.977}
"""Held-out accuracy as the trial saw it: one value before training, one after."""
SPARSE = {0: 0.1, 10: 0.2, 30: 0.6, 40: 0.5}


@pytest.fixture
def run(project: Project, node: Node) -> PhaseRun:
    made = make_run(project, state="succeeded")
    make_event(made, node, 1, "progress", step=24, total=24)
    MetricSeries.objects.filter(run=made).delete()
    put_series(made, "eval/accuracy", HELD)
    put_series(made, "eval/quality", SPARSE)
    put_series(made, "loss", {step: 0.01 * step for step in range(41)})
    return made


def open_charts(site: Site, run: PhaseRun, query: str) -> Page:
    page = site.open(reverse("run-detail", args=[run.pk]) + query)
    page.wait_for_function("() => document.querySelector(\"[data-name='loss'] [data-plot]\")?.data?.length > 0")
    return page


def traces(page: Page, name: str) -> list[dict[str, Any]]:
    """The traces of a chart that show a value, as far as a test reads them."""
    found: list[dict[str, Any]] = page.evaluate(
        "(name) => document.querySelector(`[data-name='${name}'] [data-plot]`).data.map((t) => ({mode: t.mode, x: t.x, y: t.y}))",
        name,
    )
    return found


@pytest.mark.parametrize(("axis", "place"), [
    ("step", "step"), pytest.param("tokens", "token", marks=pytest.mark.slow),
    pytest.param("process", "process time", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_log_axis_says_what_it_cannot_draw_and_shows_the_rest_as_a_point(
    site: Site, run: PhaseRun, axis: str, place: str
) -> None:
    page = open_charts(site, run, f"?logx=1&x={axis}")
    chart = page.locator("[data-name='eval/accuracy']")
    expect(chart.locator("[data-aside]")).to_have_text(f"1 point at {place} 0 cannot be drawn on this axis.")
    drawn = traces(page, "eval/accuracy")
    assert all(len(trace["x"]) == 1 for trace in drawn)
    assert [trace["y"] for trace in drawn if trace["mode"] == "markers"] == [[0.977]]
    assert "cannot be drawn" in (chart.locator("[data-plot]").get_attribute("aria-label") or "")
    page.uncheck("[data-chart-toolbar] [name=logx]")
    expect(chart.locator("[data-aside]")).to_be_hidden()
    page.wait_for_function(
        "() => document.querySelector(\"[data-name='eval/accuracy'] [data-plot]\").data.every((t) => t.x.length === 2)"
    )


def test_a_log_axis_of_values_draws_no_line_to_zero(site: Site, run: PhaseRun) -> None:
    put_series(run, "reward/mean", {1: 0.0, 2: 0.5, 3: 0.0})
    page = open_charts(site, run, "?logy=1&smooth=0")
    chart = page.locator("[data-name='reward/mean']")
    chart.scroll_into_view_if_needed()
    expect(chart.locator("[data-aside]")).to_have_text("2 points at 0 or below cannot be drawn (×).")
    drawn = traces(page, "reward/mean")
    assert all(trace["y"] == [None, 0.5, None] for trace in drawn if trace["mode"] == "lines")
    assert [2] in [trace["x"] for trace in drawn if trace["mode"] == "markers"]


def test_a_window_between_two_points_shows_the_line_that_crosses_it(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run, "?from=14&to=23&smooth=0")
    expect(page.locator("[data-name='eval/quality'] [data-note]")).to_be_hidden()
    assert all((trace["x"], trace["y"]) == ([10, 30], [0.2, 0.6]) for trace in traces(page, "eval/quality"))
    assert traces(page, "loss")[0]["x"] == list(range(13, 25)), "neighbours on both sides, and no more"


def test_a_window_without_points_names_the_window(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run, "?from=31&to=38")
    note = page.locator("[data-name='eval/accuracy'] [data-note]")
    expect(note).to_have_text("No value between step 31 and 38.")
    page.click("[data-zoom-reset]")
    expect(note).to_be_hidden()


def test_a_name_that_no_chart_has_is_said(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run, "")
    page.fill("[data-chart-toolbar] [name=q]", "zzz")
    none = page.locator("[data-charts-none]")
    expect(none).to_have_text("No chart is called “zzz”.")
    page.fill("[data-chart-toolbar] [name=q]", "loss")
    expect(none).to_be_hidden()


def test_the_readout_says_which_value_is_smoothed(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run, "?smooth=0.9")
    box = page.locator("[data-name='loss'] [data-plot]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 150, box["y"] + 80)
    page.wait_for_function("() => / smoothed\\)/.test(document.querySelector(\"[data-name='loss'] [data-readout]\").textContent)")


TICKS: list[tuple[list[float], list[str]]] = [
    ([2, 24], ["1", "2", "5", "10", "20", "50", "100"]),
    ([0.64, 0.977], ["0.7", "0.8", "0.9"]),
    ([1, 1e6], ["1", "10", "100", "1\u202f000", "10\u202f000", "100\u202f000", "10<sup>6</sup>"]),
    ([1e-5, 1e-4], ["10<sup>−5</sup>", "2·10<sup>−5</sup>", "5·10<sup>−5</sup>", "10<sup>−4</sup>"]),
    ([5], ["5"]),
    ([0, -1], []),
]


def test_ticks_of_a_log_axis_are_few_and_whole_numbers(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run, "")
    for values, ticks in TICKS:
        found = page.evaluate("async (v) => (await import('/static/js/run/axis.js')).logTicks(v).ticktext", values)
        assert found[: len(ticks)] == ticks and len(found) <= len(ticks) + 3, values
