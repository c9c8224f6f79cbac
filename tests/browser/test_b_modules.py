"""Laws of the browser modules that need no page: smoothing, buckets, the view in the address, the run's stream.

Each test imports a module into an empty page of the real browser; files come from a small server in this process.
"""

from __future__ import annotations

import functools
import http.server
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.browser.shared import ARGUMENTS

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the repository's static files and says nothing."""

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    handler = functools.partial(Quiet, directory=str(ROOT))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        opened = browser.new_page()
        opened.goto(f"http://127.0.0.1:{server.server_address[1]}/static/js/run/smoothing.js")
        yield opened
        browser.close()
    server.shutdown()
    thread.join()
    server.server_close()


def run(page: Page, module: str, body: str, argument: Any = None) -> Any:
    """What `body` returns, with the module's exports as `m` and the argument as `a`."""
    return page.evaluate(f"async (a) => {{ const m = await import('/static/js/run/{module}'); {body} }}", argument)


def twema(xs: list[float], ys: list[float | None], smoothing: float) -> list[float | None]:
    """The plain definition: each earlier point weighs w to the power of its distance, w = min(√s, 0.999)."""
    weight, width = min(smoothing**0.5, 0.999), xs[-1] - xs[0]
    out: list[float | None] = []
    for i, y in enumerate(ys):
        if y is None:
            out.append(None)
            continue
        kept = [(x, v) for x, v in zip(xs[: i + 1], ys[: i + 1], strict=True) if v is not None]
        weights = [weight ** ((xs[i] - x) / width * 1000) for x, _ in kept]
        out.append(sum(w * v for w, (_, v) in zip(weights, kept, strict=True)) / sum(weights))
    return out


def test_smoothing_equals_its_definition_over_uneven_steps_and_gaps(page: Page) -> None:
    rng = random.Random(1)
    xs = sorted(rng.sample(range(10_000), 200))
    ys = [None if rng.random() < 0.1 else rng.gauss(0, 1) for _ in xs]
    for smoothing in (0.3, 0.9, 0.999):
        got = run(page, "smoothing.js", "return m.twema(a.xs, a.ys, a.s)", {"xs": xs, "ys": ys, "s": smoothing})
        assert got == pytest.approx(twema([float(x) for x in xs], ys, smoothing), nan_ok=True)


def test_smoothing_off_is_the_line_itself_and_a_constant_stays_constant(page: Page) -> None:
    assert run(page, "smoothing.js", "return m.twema([1, 2, 3], [3, NaN, 5], 0)") == [3, None, 5]
    assert run(page, "smoothing.js", "return m.twema([1, 5, 6], [2, 2, 2], 0.9)") == pytest.approx([2, 2, 2])
    assert run(page, "smoothing.js", "return m.twema([7], [2], 0.9)") == [2]
    assert run(page, "smoothing.js", "return m.twema([], [], 0.9)") == []


def test_equal_density_twice_smooths_equally(page: Page) -> None:
    """A point given twice at the same place changes no later value by more than its doubled weight allows."""
    once = run(page, "smoothing.js", "return m.twema([0, 100, 200], [1, 1, 4], 0.9)")
    twice = run(page, "smoothing.js", "return m.twema([0, 0, 100, 100, 200], [1, 1, 1, 1, 4], 0.9)")
    assert once[0] == twice[0] == 1 and once[2] == pytest.approx(twice[4], abs=0.5)


def scalars(first: int, last: int, attempt: int = 1) -> list[dict[str, Any]]:
    return [
        {
            "id": 100 + n,
            "attempt": attempt,
            "seq": n,
            "time": "2026-01-01T00:00:00Z",
            "kind": "scalars",
            "payload": {"step": n, "tokens": n * 10, "process_seconds": n / 2, "values": {"loss": 1 / n}},
        }
        for n in range(first, last + 1)
    ]


LOAD = "const s = new m.Series('loss'); const answer = {x: [], last: []};"


def test_live_points_merge_without_losing_extremes_or_counts(page: Page) -> None:
    events = scalars(1, 5000)
    events[2345]["payload"]["values"]["loss"] = 77.0
    events[3456]["payload"]["values"]["loss"] = -77.0
    events[4000]["payload"]["values"]["loss"] = "nan"
    got = run(page, "series.js", LOAD + "s.load(answer, 0); a.forEach((e) => s.append(e)); return s.buckets", events)
    assert len(got) <= 1000
    assert sum(b["n"] for b in got) == 5000 and sum(b["nonfinite"] for b in got) == 1
    assert max(b["max"] for b in got) == 77 and min(b["min"] for b in got) == -77
    assert got[-1]["step"] == 5000 and [b["step"] for b in got] == sorted(b["step"] for b in got)


def test_register_first_fetch_second_gives_every_point_once(page: Page) -> None:
    """Events that came in while the answer was on its way are applied when they are newer, else dropped."""
    body = """
      const s = new m.Series('loss');
      const answer = {x: [1, 2, 3], last: [1, 1/2, 1/3], min: [1, 1/2, 1/3], max: [1, 1/2, 1/3], n: [1, 1, 1]};
      const whole = s.load(answer, 103, a.slice(1, 6));
      a.slice(4).forEach((e) => s.append(e));
      return {steps: s.buckets.map((b) => b.step), whole};
    """
    got = run(page, "series.js", body, scalars(1, 8))
    assert got == {"steps": [1, 2, 3, 4, 5, 6, 7, 8], "whole": True}


def test_a_resumed_run_that_goes_back_asks_the_server_again(page: Page) -> None:
    body = LOAD + "s.load(answer, 0); a.forEach((e) => s.append(e)); return s.append({...a[2], id: 999})"
    assert run(page, "series.js", body, scalars(1, 5)) == "again"


def test_other_metrics_of_an_event_are_left_alone(page: Page) -> None:
    body = "const s = new m.Series('kl'); s.load({}, 0); return [s.append(a[0]), s.buckets.length]"
    assert run(page, "series.js", body, scalars(1, 1)) == ["old", 0]


def test_a_range_of_another_axis_becomes_steps_one_bucket_wider(page: Page) -> None:
    body = "return m.stepRange(a, 'tokens', 250, 450)"
    buckets = [{"step": n, "tokens": n * 100} for n in range(1, 11)]
    assert run(page, "series.js", body, buckets) == [2, 5]


STREAM = """
  const sent = [], statuses = [];
  const sockets = [];
  const make = (url) => { const s = {url, close() { this.closedByUs = true; }}; sockets.push(s); return s; };
  const stream = new m.RunStream('/ws/runs/1/', 10, make);
  stream.addEventListener('event', ({detail}) => sent.push(detail.id));
  stream.addEventListener('status', ({detail}) => statuses.push(detail.status));
  const give = (n, msg) => sockets[n].onmessage({data: JSON.stringify(msg)});
  const event = (id, seq, attempt = 1) => ({type: 'event', id, seq, attempt, kind: 'scalars', payload: {}});
  stream.open();
"""


def test_the_stream_gives_each_event_once_and_in_order_over_a_dropped_socket(page: Page) -> None:
    body = (
        STREAM
        + """
      give(0, {type: 'hello', last_id: 12, state: {}});
      [11, 12, 12, 11].forEach((id) => give(0, event(id, id)));
      sockets[0].onclose({code: 1006});
      stream.open();
      const asked = sockets[1].url;
      [12, 13].forEach((id) => give(1, event(id, id)));
      stream.close();
      return {sent, statuses, asked};
    """
    )
    got = run(page, "stream.js", body)
    assert got["sent"] == [11, 12, 13]
    assert got["statuses"] == ["live", "reconnecting", "live"]
    assert got["asked"].endswith("after=12")


def test_a_hole_in_the_sequence_is_asked_for_once_and_then_accepted(page: Page) -> None:
    body = (
        STREAM
        + """
      give(0, event(11, 1)); give(0, event(15, 5));
      const again = sockets.length;
      give(1, event(13, 3)); const third = sockets.length;
      if (third > 2) { give(2, event(13, 3)); give(2, event(15, 5)); give(2, event(16, 6)); }
      stream.close();
      return {sent, again, asked: sockets.map((s) => new URL(s.url).searchParams.get('after'))};
    """
    )
    got = run(page, "stream.js", body)
    assert got["again"] == 2 and got["asked"][1] == "11"
    assert got["sent"][0] == 11 and got["sent"][-1] == 16


def test_a_new_attempt_starts_its_own_sequence(page: Page) -> None:
    body = STREAM + "give(0, event(11, 7)); give(0, event(12, 1, 2)); stream.close(); return [sent, sockets.length]"
    assert run(page, "stream.js", body) == [[11, 12], 1]


@pytest.mark.parametrize(("code", "word"), [(4401, "signed out"), (4403, "no access"), (4404, "gone")])
def test_a_refusal_is_said_and_not_tried_again(page: Page, code: int, word: str) -> None:
    body = STREAM + "sockets[0].onclose({code: a}); return [statuses, stream.timer === undefined]"
    assert run(page, "stream.js", body, code) == [[word], True]


def test_the_address_holds_the_view_and_gives_it_back(page: Page) -> None:
    body = """
      const view = new m.View('');
      view.set({smooth: 0.5, x: 'tokens', logy: true, from: 10, to: 20, q: 'loss'});
      const again = new m.View(location.search);
      const same = JSON.stringify(view.values) === JSON.stringify(again.values);
      view.set({smooth: 0.95, x: 'step', logy: false, from: null, to: null, q: ''});
      return {same, left: location.search};
    """
    assert run(page, "view.js", body) == {"same": True, "left": ""}


@pytest.mark.parametrize(
    "search", ["?x=__proto__", "?smooth=9", "?from=5", "?from=9&to=3", "?smooth=NaN&x=wall&from=a&to=b"]
)
def test_a_broken_address_is_the_plain_view(page: Page, search: str) -> None:
    body = "const plain = new m.View('').values; return JSON.stringify(new m.View(a).values) === JSON.stringify(plain)"
    assert run(page, "view.js", body, search)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (-1234567, "−1\u202f234\u202f567"),
        (0.00012, "1.20e−4"),
        (None, "no number"),
        (7140.2, "7\u202f140"),
    ],
)
def test_numbers_are_written_as_people_read_them(page: Page, value: float | None, words: str) -> None:
    assert run(page, "words.js", "return m.number(a)", value) == words


def test_thinking_is_parted_from_the_answer(page: Page) -> None:
    body = "return a.map((t) => m.parts(t))"
    texts = ["<think>a</think>b", "<think>cut off", "plain", "<think></think>x"]
    assert run(page, "completion.js", body, texts) == [["a", "b"], ["cut off", ""], ["", "plain"], ["", "x"]]
