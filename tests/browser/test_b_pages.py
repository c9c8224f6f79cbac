"""The pages of runs, deployments and playground in a real browser: live without reload, without gap, without errors.

Pages and REST come from Django's live server; the socket is in the hands of the test, so that it can drop it.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from r1platform.models import Node, Project
from serving_app.models import Message
from tests.browser.signed_in import SETTLED, Site
from tests.pages.b_rows import RESULT, make_checkpoint, make_conversation, make_deployment, make_event, make_run
from tests.training_app.rows import put_series
from training_app.models import PhaseRun

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
NUM_STEPS = 40


@pytest.fixture
def run(project: Project, node: Node) -> PhaseRun:
    """A live run with two metrics of forty steps, one of them with a value that is no number."""
    made = make_run(project, summary={"perf/tok_s": 7140.0})
    make_event(made, node, NUM_STEPS, "progress", step=NUM_STEPS, total=100)
    for name in ("loss", "kl", *(f"perf/extra_{n}" for n in range(36))):
        put_series(made, name, {step: None if step == 7 else 1 / step for step in range(1, NUM_STEPS + 1)})
    return made


def scalars(run: PhaseRun, seq: int, **values: float) -> dict[str, Any]:
    last = run.events.latest("id").pk
    payload = {"step": seq, "tokens": seq * 100, "process_seconds": seq / 2, "values": values or {"loss": 0.01}}
    return {
        "type": "event",
        "id": last + seq,
        "attempt": 1,
        "seq": seq,
        "time": time.time(),
        "kind": "scalars",
        "payload": payload,
    }


def drawn(page: Page, name: str) -> list[float]:
    """Steps of the newest line of a chart, in the order drawn."""
    found: list[float] = page.evaluate(
        "(name) => document.querySelector(`[data-name='${name}'] [data-plot]`).data?.map((t) => t.x ?? []).filter((x) => x.length > 1).at(-1) ?? []", name
    )
    return found


def wait_drawn(page: Page, seq: int) -> None:
    page.wait_for_function("(seq) => Number(document.documentElement.dataset.lastDrawnSeq) >= seq", arg=seq)


def open_charts(site: Site, run: PhaseRun, query: str = "") -> Page:
    page = site.open(reverse("run-detail", args=[run.pk]) + query)
    page.wait_for_function("() => document.querySelector(\"[data-name='loss'] [data-plot]\")?.data?.length > 0")
    return page


def test_points_appear_without_reload_and_survive_a_dropped_socket(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run, "?smooth=0.5")
    expect(page.locator("[data-live-badge]")).to_have_attribute("data-status", "live")
    for seq in range(NUM_STEPS + 1, NUM_STEPS + 6):
        site.send(**scalars(run, seq))
    wait_drawn(page, NUM_STEPS + 5)
    site.sockets[-1].close()
    page.wait_for_function("() => document.querySelector('[data-live-badge]').dataset.status !== 'live'")
    page.wait_for_function("() => document.querySelector('[data-live-badge]').dataset.status === 'live'")
    assert f"after={run.events.latest('id').pk + NUM_STEPS + 5}" in site.sockets[-1].url
    for seq in range(NUM_STEPS + 4, NUM_STEPS + 9):
        site.send(**scalars(run, seq))
    wait_drawn(page, NUM_STEPS + 8)
    traces = page.evaluate("() => document.querySelector(\"[data-name='loss'] [data-plot]\").data.map((t) => t.x)")
    lines = [xs for xs in traces if len(xs) > 1]
    assert lines and all(xs == list(range(1, NUM_STEPS + 9)) for xs in lines)


def test_a_new_metric_gets_its_chart_by_itself(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run)
    site.send(**scalars(run, NUM_STEPS + 1, brand_new=0.5))
    expect(page.locator("[data-name='brand_new'] [data-title]")).to_have_text("brand_new")


def test_charts_out_of_view_are_not_drawn_until_seen(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run)
    last = page.locator("[data-name='perf/extra_35']")
    assert page.evaluate("() => document.querySelector(\"[data-name='perf/extra_35'] [data-plot]\").data === undefined")
    last.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector(\"[data-name='perf/extra_35'] [data-plot]\").data?.length > 0")


def test_nothing_is_drawn_while_the_tab_is_hidden_and_all_on_return(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run)
    hide = """(on) => {
      Object.defineProperty(document, 'hidden', {value: on, configurable: true});
      document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(hide, True)
    site.send(**scalars(run, NUM_STEPS + 1))
    page.wait_for_timeout(700)
    assert len(drawn(page, "loss")) != NUM_STEPS + 1
    page.evaluate(hide, False)
    wait_drawn(page, NUM_STEPS + 1)


def test_what_is_no_number_is_marked(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run)
    texts = page.evaluate(
        "() => document.querySelector(\"[data-name='loss'] [data-plot]\").data.flatMap((t) => t.text ?? [])"
    )
    assert texts == ["step 7: 1 of 1 values are not numbers"]


def test_zoom_asks_the_server_for_that_range_and_the_address_keeps_it(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run)
    box = page.locator("[data-name='loss'] [data-plot]").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    with page.expect_request(lambda request: "/metrics/" in request.url and "from=" in request.url):
        page.mouse.move(box["x"] + 120, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + 220, middle, steps=4)
        page.mouse.up()
    page.wait_for_function("() => location.search.includes('from=')")
    page.wait_for_function(
        "(n) => document.querySelector(\"[data-name='loss'] [data-plot]\").data.map((t) => t.x.length).every((size) => size < n)", arg=NUM_STEPS
    )
    seen = drawn(page, "kl")
    address = page.url
    page.reload()
    page.wait_for_function("() => document.querySelector(\"[data-name='loss'] [data-plot]\")?.data?.length > 0")
    assert page.url == address and drawn(page, "kl") == seen
    page.click("[data-zoom-reset]")
    page.wait_for_function(
        "(n) => document.querySelector(\"[data-name='kl'] [data-plot]\").data.some((t) => t.x.length >= n - 1)", arg=NUM_STEPS
    )
    assert "from=" not in page.url


def test_the_cursor_is_shared(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run)
    page.wait_for_function("() => document.querySelector(\"[data-name='kl'] [data-plot]\")?.data?.length > 0")
    box = page.locator("[data-name='loss'] [data-plot]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 150, box["y"] + box["height"] / 2)
    page.wait_for_function(
        "() => document.querySelector(\"[data-name='kl'] [data-readout]\").textContent.startsWith('step ')"
    )
    words = [page.locator(f"[data-name='{name}'] [data-readout]").inner_text().split(":")[0] for name in ("loss", "kl")]
    assert words[0] == words[1]


def test_filter_and_axes_are_in_the_address(site: Site, run: PhaseRun) -> None:
    page = open_charts(site, run)
    page.fill("[data-chart-toolbar] [name=q]", "kl")
    expect(page.locator("[data-name='loss']")).to_be_hidden()
    page.select_option("[data-chart-toolbar] [name=x]", "tokens")
    page.check("[data-chart-toolbar] [name=logy]")
    assert "q=kl" in page.url and "x=tokens" in page.url and "logy=1" in page.url
    page.wait_for_function(
        "() => document.querySelector(\"[data-name='kl'] [data-plot]\").data.some((t) => t.x.at(-1) === 4000)"
    )


def test_an_answer_streams_and_survives_a_refresh_in_the_middle(
    site: Site,
    project: Project,
    alice: Any,
    node: Node,
) -> None:
    deployment = make_deployment(project, make_checkpoint(make_run(project), node))
    conversation = make_conversation(project, alice, deployment)
    parent = conversation.messages.latest("id")
    asked = Message.objects.create(conversation=conversation, parent=parent, role="user", content="And twice that?")
    answer = Message.objects.create(
        conversation=conversation, parent=asked, role="assistant", state="thinking", reasoning="4", seq=1
    )
    site.hello = {"type": "snapshot", "conversation": {"id": conversation.pk}, "messages": []}
    page = site.open(reverse("conversation", args=[conversation.pk]))
    turn = page.locator(f"[data-message='{answer.pk}']")
    expect(page.locator("[data-live-badge]")).to_have_attribute("data-status", "live")
    expect(turn.locator("[data-thinking]")).to_have_attribute("open", "")
    site.send(type="delta", message=answer.pk, seq=2, channel="reasoning", text="2+42=84")
    expect(turn.locator("[data-reasoning]")).to_have_text("42+42=84")
    Message.objects.filter(pk=answer.pk).update(reasoning="42+42=84", seq=2)
    page.reload()
    expect(turn.locator("[data-reasoning]")).to_have_text("42+42=84")
    expect(page.locator("[data-live-badge]")).to_have_attribute("data-status", "live")
    site.send(type="delta", message=answer.pk, seq=2, channel="reasoning", text="2+42=84")
    site.send(type="delta", message=answer.pk, seq=3, channel="content", text="It is **84**")
    expect(turn.locator("[data-content]")).to_have_text("It is **84**")
    expect(turn.locator("[data-reasoning]")).to_have_text("42+42=84")
    assert turn.locator("[data-thinking]").get_attribute("open") is None
    expect(page.locator("[data-stop-slot] button")).to_have_text("Stop")
    Message.objects.filter(pk=answer.pk).update(content="It is **84**.", state="done", seq=4)
    site.send(type="state", message=answer.pk, state="done", reason="", seq=4, usage={})
    expect(turn.locator("[data-content] strong")).to_have_text("84")
    expect(page.locator("[data-stop-slot] button")).to_have_count(0)


def test_every_page_fits_and_says_nothing_wrong_to_the_browser(
    site: Site,
    run: PhaseRun,
    project: Project,
    alice: Any,
    node: Node,
) -> None:
    """No error, no violation of the content policy, no sideways scrolling, on a desk and on a phone."""
    held = make_run(project, name="held", state="gate_failed", gate_threshold=0.85, result=RESULT)
    deployment = make_deployment(project, make_checkpoint(held, node))
    conversation = make_conversation(project, alice, deployment)
    pages = ["/runs/", "/runs/new/", "/deployments/", "/deployments/new/", "/playground/", "/usage/"]
    pages += [
        reverse("run-detail", args=[run.pk, tab])
        for tab in ("charts", "rewards", "experts", "checkpoints", "config", "history")
    ]
    pages += [reverse("run-detail", args=[held.pk]), reverse("deployment-detail", args=[deployment.pk])]
    pages += [reverse("conversation", args=[conversation.pk])]
    wide = "() => document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    for path in pages:
        page = site.open(path)
        page.wait_for_function(SETTLED)
        for size, scheme in ((1280, "dark"), (390, "light")):
            page.set_viewport_size({"width": size, "height": 900})
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.wait_for_function(wide)
        assert site.errors == [], path
