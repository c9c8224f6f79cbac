"""axe finds nothing serious on any page, by day and by night; one browser and one set of rows serve all of them."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from playwright.sync_api import Page

from r1platform.demo.pages import PAGES, addresses
from r1platform.models import Node, Project
from tests.browser.signed_in import SETTLED, Site
from tests.pages.b_rows import RESULT, make_benchmark, make_checkpoint, make_conversation, make_deployment, make_event
from tests.training_app.rows import make_version, put_series
from training_app import services
from training_app.models import PhaseRun

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
SERIOUS = {"serious", "critical"}
NOT_OURS = {"api-docs", "styleguide"}
"""The package's own page, and the one that shows every component in every state at once."""
OPTIONS: dict[str, Any] = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
COLOURS: dict[str, Any] = {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}
CONTEXT = {"exclude": [[".plot"]]}
NO_PLOTS = "window.Plotly = { react: async (plot) => { plot.on = () => {}; }, Plots: { resize() {} } };"
"""Plots are pictures with a label, which is checked; what is drawn inside is not, and takes most of the time."""
LOAD = {"step": 20, "layers": [[0.2, 0.3, 0.5, 0.0]] * 2, "bias": [[0.0, 0.1, -0.1, 0.0]] * 2, "max_violation": [0.5, 0.4]}


@pytest.fixture
def ids(project: Project, alice: User, node: Node) -> dict[str, int]:
    """A launch with a phase done and one under way, a checkpoint, a deployment and a chat."""
    version = make_version(project, num_held_out=600)
    plan = services.pipeline_from_template(project=project, user=alice, template="article", name="Tiny R1", dataset_version=version)
    launch = services.pipeline_launch(pipeline=plan, user=alice)
    first, run, _last = launch.runs.order_by("position")
    PhaseRun.objects.filter(pk=first.pk).update(state="succeeded", result=RESULT, gate_verdict="passed", device_seconds=60)
    PhaseRun.objects.filter(pk=run.pk).update(state="running", summary={"perf/tok_s": 7140.0, "moe/max_vio": 0.4})
    make_event(run, node, 20, "progress", step=20, total=48)
    make_event(run, node, 21, "experts", **LOAD)
    for name in ("loss", "reward/total", "moe/max_vio"):
        put_series(run, name, {step: 1 / step for step in range(1, 21)})
    deployment = make_deployment(project, make_checkpoint(run, node))
    chat = make_conversation(project, alice, deployment)
    return {
        "launch": launch.pk, "pipeline": plan.pk, "phase": plan.phases.get(position=1).pk, "run": run.pk,
        "dataset": version.dataset_id, "number": version.number, "deployment": deployment.pk, "conversation": chat.pk,
        "load": make_benchmark(deployment).pk,
    }  # fmt: skip


def found_on(page: Page, options: dict[str, Any]) -> list[str]:
    """What is seriously wrong, with the first place of each."""
    told = Axe().run(page, context=CONTEXT, options=options).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:160]} ({len(one['nodes'])})" for one in told if one["impact"] in SERIOUS]


@pytest.mark.parametrize("names", [
    ["overview", "dataset-new", "version", "launch", "run-experts", "conversation"],
    pytest.param(sorted(PAGES.keys() - NOT_OURS), marks=pytest.mark.slow),
], ids=["some", "all"])  # fmt: skip
def test_no_page_has_a_serious_violation(names: list[str], site: Site, ids: dict[str, int]) -> None:
    wrong, paths = {}, addresses(ids)
    site.page.route("**/plotly.min.js", lambda route: route.fulfill(body=NO_PLOTS, content_type="text/javascript"))
    for name in names:
        page = site.open(paths[name])
        page.wait_for_function(SETTLED)
        if found := found_on(page, OPTIONS):
            wrong[name] = found
        page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        if found := found_on(page, COLOURS):
            wrong[f"{name}, dark"] = found
        page.emulate_media(color_scheme="light")
    assert not wrong, "\n".join(f"{name}: {line}" for name, lines in wrong.items() for line in lines)
