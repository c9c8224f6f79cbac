"""A run's report: for members, whole without further files, its plots true to the stored buckets."""

from __future__ import annotations

import math
import re
from typing import Any

from django.test import Client
from django.urls import reverse

from r1platform.models import Node, Project
from r1platform.run_report import plot_of
from tests.pages.b_rows import make_checkpoint, make_event, make_run


def test_it_is_whole_by_itself(client_alice: Client, project: Project, node: Node, django_assert_max_num_queries: Any) -> None:
    run = make_run(project, name="<b>sums</b>", notes="A note.", gate_measured={"metric": "accuracy", "compared": 0.9, "threshold": 0.85,
                   "direction": "at_least", "low": 0.88, "high": 0.92}, gate_verdict="passed")  # fmt: skip
    for step in range(8):
        make_checkpoint(run, node, step=step)
        make_event(run, node, step + 1, "evaluation", when="during", step=step, num_problems=512, accuracy=0.9, accuracy_low=0.88,
                   accuracy_high=0.92, quality=0.8)  # fmt: skip
    url = reverse("run-report", args=[run.pk])
    with django_assert_max_num_queries(25):
        answer = client_alice.get(url, {"download": ""})
    page = answer.content.decode()
    assert answer["Content-Disposition"] == f'attachment; filename="run-{run.pk}.html"'
    assert "<b>sums</b>" not in page and "&lt;b&gt;sums" in page and "A note." in page
    assert "accuracy 0.9, at least 0.85 (95\u202f%: 0.88 to 0.92)".replace("\u202f", " ") in page
    assert not re.search(r"<script|<link|<img|src=", page)


def series(last: list[float | None], **columns: Any) -> dict[str, Any]:
    num = len(last)
    told = {"name": "loss", "unit": "nats", "x": list(range(num)), "last": last, "min": last, "max": last, "nonfinite": [0] * num}
    return {**told, **columns}


def test_a_plot_shows_every_value_a_gap_as_a_gap_and_what_was_not_finite() -> None:
    plot = plot_of(series([3.0, 2.0, None, 1.0, 0.5], nonfinite=[0, 0, 1, 0, 0]))
    assert plot is not None and [len(line.split()) for line in plot.lines] == [2, 2] and len(plot.marks) == 1 and plot.last == 0.5
    heights = [float(point.split(",")[1]) for line in plot.lines for point in line.split()]
    assert heights == sorted(heights), "a falling loss falls"
    assert [label for _, label in plot.ticks_y] == ["0.5", "1.75", "3"]


def test_plots_of_little_are_drawn_or_left_out() -> None:
    flat = plot_of(series([2.0, 2.0]))
    assert flat is not None and all(math.isfinite(place) for place, _ in flat.ticks_y)
    one = plot_of(series([7.0]))
    assert one is not None and len(one.lines) == 1
    assert plot_of(series([])) is None and plot_of(series([None, None])) is None
