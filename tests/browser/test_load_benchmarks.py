"""Benchmarks of a deployment in a real browser: what is drawn, what is laid over each other, what comes while it runs."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from r1platform.models import Node, Project
from serving_app.models import BenchmarkLevel, DeploymentBenchmark
from tests.browser.signed_in import Site
from tests.pages.b_rows import make_benchmark, make_checkpoint, make_deployment, make_run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def drawn(page: Page, name: str) -> list[dict[str, Any]]:
    page.wait_for_function(f"() => document.querySelector(\"[data-chart='{name}']\")?.data?.length > 0")
    found: list[dict[str, Any]] = page.evaluate(
        "(name) => document.querySelector(`[data-chart='${name}']`).data.map((t) => ({name: t.name, x: [...t.x], y: [...t.y], dash: t.line.dash}))",
        name,
    )
    return found


def test_levels_are_drawn_as_they_come_and_benchmarks_lie_over_each_other(site: Site, project: Project, node: Node) -> None:
    deployment = make_deployment(project, make_checkpoint(make_run(project), node))
    first = make_benchmark(deployment)
    running = make_benchmark(deployment, state="running", level_now=8, num_done=40)
    page = site.open(reverse("benchmark-detail", args=[deployment.pk, running.pk]))
    expect(page.locator("[data-part='progress']")).to_contain_text("8 streams at once now; 40 of 64 requests are over, 2 of 2 levels done")
    assert drawn(page, "tokens_per_second")[0]["y"] == [317.4, 634.8]
    assert [(line["name"], line["dash"], line["y"]) for line in drawn(page, "ttft_seconds")] == [
        ("p50", "solid", [20, 40]), ("p90", "dash", [30, 60]), ("p99", "dot", [40, 80]),
    ]  # fmt: skip
    level = running.levels.get(concurrency=4)
    level.pk, level.concurrency, level.tokens_per_second = None, 8, 900.0
    level.save(force_insert=True)
    site.send(type="live", kind="benchmark")
    page.wait_for_function("() => document.querySelector(\"[data-chart='tokens_per_second']\").data[0].x.length === 3")
    DeploymentBenchmark.objects.filter(pk=running.pk).update(state="succeeded")
    page = site.open(reverse("benchmark-list", args=[deployment.pk]))
    assert [line["name"] for line in drawn(page, "tokens_per_second")] == [f"Revision 1, benchmark {running.pk}"]
    page.check(f"input[name=b][value='{first.pk}']")
    page.get_by_role("button", name="Lay over each other").click()
    page.wait_for_url("**/benchmarks/?b=*")
    lines = drawn(page, "itl_seconds")
    assert [(line["name"].rsplit(" ", 1)[1], line["dash"]) for line in lines] == [("p50", "solid"), ("p99", "dot")] * 2
    assert {len(line["x"]) for line in lines} == {2, 3} and BenchmarkLevel.objects.count() == 5
