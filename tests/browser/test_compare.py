"""Charts of one run and of several in a real browser: what is drawn, what is said at the cursor, what can be taken along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from r1platform.models import Project
from tests.browser.signed_in import Site
from tests.pages.b_rows import CONFIG, make_run
from tests.training_app.rows import put_series
from training_app.models import PhaseRun

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
LOSS = "[data-name='loss']"


@pytest.fixture
def runs(project: Project) -> list[PhaseRun]:
    first, second = make_run(project, state="succeeded"), make_run(project, name="other", state="succeeded", config={**CONFIG, "seed": 4})
    put_series(first, "loss", {step: 1.0 + step % 5 for step in range(200)} | {200: 900.0})
    put_series(second, "loss", dict.fromkeys(range(100), 2.0))
    put_series(second, "eval/accuracy", {0: 0.5, 50: 0.75})
    return [first, second]


def drawn(page: Page, name: str = "loss") -> list[dict[str, Any]]:
    page.wait_for_function(f"() => document.querySelector(\"[data-name='{name}'] [data-plot]\")?.data?.length > 0")
    found: list[dict[str, Any]] = page.evaluate(
        "(name) => document.querySelector(`[data-name='${name}'] [data-plot]`).data.map((t) => "
        "({mode: t.mode, x: [...t.x], y: [...t.y], colour: t.line?.color, symbol: t.marker?.symbol, text: t.text}))",
        name,
    )
    return found


def test_runs_lie_over_each_other_and_each_can_be_hidden(site: Site, runs: list[PhaseRun]) -> None:
    first = runs[0]
    page = site.open(f"{reverse('run-list')}?q=")
    for run in runs:
        page.check(f"input[form=compare][value='{run.pk}']")
    expect(page.locator("[data-compare]")).to_have_text("Compare 2 runs")
    page.click("[data-compare]")
    page.wait_for_url("**/runs/compare/?runs=*")
    lines = [trace for trace in drawn(page) if trace["mode"] == "lines"]
    assert {len(trace["x"]) for trace in lines} == {201, 100} and len({trace["colour"] for trace in lines}) == 2
    box = page.locator(f"{LOSS} [data-plot]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 120, box["y"] + 80)
    values = page.locator(f"{LOSS} [data-values]")
    expect(values).to_contain_text(f"{first.pk} {first.name}")
    expect(values).to_contain_text("other")
    page.click(f"[data-run='{first.pk}']")
    page.wait_for_function("() => document.querySelector(\"[data-name='loss'] [data-plot]\").data.every((t) => t.x.length === 100)")
    assert f"hide={first.pk}" in page.url
    expect(page.locator(f"[data-run='{first.pk}']")).to_have_attribute("aria-pressed", "false")
    page.select_option("[data-chart-toolbar] [name=x]", "tokens")
    page.wait_for_function("() => document.querySelector(\"[data-name='loss'] [data-plot]\").data[0].x.at(-1) === 9900")
    page.click("text=Parallel coordinates")
    page.wait_for_function("() => document.querySelector('[data-plot]')?.data?.length === 1")
    titles = page.evaluate("() => document.querySelector('[data-plot]').layout.xaxis.ticktext")
    assert titles[0] == "seed" and len(titles) == 3, "a setting, loss and accuracy"
    page.click(f"[data-run='{first.pk}']")
    page.wait_for_function("() => document.querySelector('[data-plot]').data.length === 2")
    assert page.evaluate("() => document.querySelector('[data-plot]').data.map((t) => t.y[0])") == [0, 1]


def test_outliers_are_left_out_of_the_scale_and_marked_and_a_chart_can_be_taken_along(
    site: Site, runs: list[PhaseRun], tmp_path: Path
) -> None:
    page = site.open(reverse("run-detail", args=[runs[0].pk]) + "?smooth=0")
    drawn(page)
    page.check("[data-chart-toolbar] [name=fit]")
    page.wait_for_function("() => document.querySelector(\"[data-name='loss'] [data-plot]\").layout.yaxis.range?.[1] < 10")
    (mark,) = [trace for trace in drawn(page) if trace["symbol"] == "triangle-up"]
    assert mark["x"] == [200] and mark["text"] == ["step 200: 900 is outside the drawn range"] and "fit=1" in page.url
    for kind, check in (("numbers", b"run,step,loss,min,max,n"), ("picture", b"\x89PNG")):
        page.click(f"{LOSS} summary")
        with page.expect_download() as waiting:
            page.click(f"{LOSS} [data-save-{kind}]")
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        assert path.read_bytes().startswith(check), kind
        assert path.name == f"run-{runs[0].pk}-loss.{'csv' if kind == 'numbers' else 'png'}"
        expect(page.locator(f"{LOSS} details")).not_to_have_attribute("open", "")
    assert (tmp_path / f"run-{runs[0].pk}-loss.csv").read_text().splitlines()[201].startswith(",200,900,900,900,1,0,")


def module(page: Page, path: str, body: str, argument: Any = None) -> Any:
    """What `body` returns, with the module's exports as `m` and the argument as `a`."""
    return page.evaluate(f"async (a) => {{ const m = await import('/static/js/{path}'); {body} }}", argument)


def test_the_modules_keep_their_laws(site: Site) -> None:
    """Limits leave out only what lies far off; numbers are quoted; an axis has its least at 0 and its most at 1."""
    page = site.open("/styleguide/")
    view = {"values": {"logy": False}}
    bucket = "const b = (y, i) => ({step: i, last: y, min: y, max: y, n: 1, nonfinite: y === null ? 1 : 0});"
    limits = bucket + "return m.limitsOf([a.ys.map(b)], a.view)"
    spread = [float(n % 10) for n in range(100)]
    assert module(page, "run/traces.js", limits, {"ys": spread, "view": view}) is None, "nothing lies outside"
    found = module(page, "run/traces.js", limits, {"ys": [*spread, 1e6, None], "view": view})
    assert found["low"] < 0 < 9 < found["high"] < 20
    assert module(page, "run/traces.js", limits, {"ys": [5.0] * 50 + [9.0], "view": view}) is None, "no width to keep to"
    logs = module(page, "run/traces.js", limits, {"ys": [10.0**n for n in range(-3, 3)] * 30 + [1e30, -1.0], "view": {"values": {"logy": True}}})
    assert 0 < logs["low"] < 1e-3 and 100 < logs["high"] < 1e6

    rows = bucket + "return m.csv({name: 'a,b', shown: [{line: {label: 'x \"y\"'}, buckets: [b(null, 3)]}]})"
    assert module(page, "run/export.js", rows) == (
        'run,step,"a,b",min,max,n,nonfinite,time,tokens,process_seconds\n"x ""y""",3,,,,1,1,,,\n'
    )

    comparison = {
        "settings": [{"path": "a.b.lr", "values": [0.1, None, 0.3]}, {"path": "kind", "values": ["z", "m", "a"]}],
        "measures": [{"name": "loss", "better": "lower", "values": [{"best": 1, "last": 9}, None, {"best": 1, "last": 2}]}],
        "titles": {"loss": "Loss"},
    }
    axes = module(page, "compare/axes.js", "return m.axesOf(a).map((x) => [x.title, m.places(x), x.ends, x.first])", comparison)
    assert axes == [
        ["b lr", [0, None, 1], ["0.1", "0.3"], True], ["kind", [1, 0.5, 0], ["a", "z"], True], ["Loss", [0.5, None, 0.5], ["", "1"], True],
    ]  # fmt: skip

    runs = [{"id": n, "name": "r"} for n in (1, 2, 9, 17)]
    strokes = module(page, "compare/runs.js", "return m.drawn(a).map((r) => [r.colour, r.dash])", runs)
    assert len({tuple(one) for one in strokes}) == 4 and strokes[0][0] == strokes[2][0] == strokes[3][0] != strokes[1][0]
