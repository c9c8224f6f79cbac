"""Tabs of a run over rows that are really stored: rewards weighed again, a prompt followed, the log searched, experts over steps."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from model_core.rundir import write_json
from r1platform.models import Node, Project
from tests.browser.signed_in import Site
from tests.training_app.rows import make_attempt, make_run, rundir_of
from tests.training_app.stored_rollouts import store
from training_app.models import Checkpoint, MetricSeries, PhaseRun, RoutedText, RunEvent
from training_app.routes import route_dir

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
WEIGHTS = {"solution_accuracy": 0.5, "efficiency": 0.5}


def group(prompt: str, *scores: tuple[float, float]) -> dict[str, Any]:
    return {"prompt": prompt, "answer": "2", "task": "sums", "completions": [
        {"text": f"<think>{place} steps of thought</think>{place}", "correct": right >= 1, "num_tokens": 10 + place, "advantage": right - 0.5,
         "finish_reason": "stop", "reward": (right + short) / 2, "components": {"solution_accuracy": right, "efficiency": short}}
        for place, (right, short) in enumerate(scores)
    ]}  # fmt: skip


@pytest.fixture
def run(project: Project, alice: User, node: Node) -> PhaseRun:
    made = make_run(project, alice, state="succeeded", num_processes=2)
    PhaseRun.objects.filter(pk=made.pk).update(
        phase="reinforcement", config={**made.config, "phase": "reinforcement", "reward": {"weights": WEIGHTS}}
    )
    attempt = make_attempt(made, node, state="succeeded")
    for step in (1, 2, 3):
        store(attempt, step, [group("1+1=", (1.0, 0.1 * step), (1.0, 0.9 - 0.2 * step)), group(f"{step}+7=", (1.0, 0.0), (0.0, 0.8))])
    for step in range(1, 9):
        payload = {"step": step, "layers": [[0.4, 0.3, 0.2, 0.1], [0.25] * 4], "bias": [[0.01 * step, -0.01 * step, 0, 0], [0] * 4],
                   "max_violation": [0.6, 0.0]}  # fmt: skip
        RunEvent.objects.create(run=made, attempt=attempt, seq=100 + step, time=made.created_at, kind="experts", payload=payload)
    rundir_of(attempt).log.write_text("".join(f"[rank {n % 2}] step {n}, loss {1 / (n + 1):.3f}\n" for n in range(6000)) + "Warning: slow disk\n")
    MetricSeries.objects.create(run=made, name="reward/total", num_points=1)
    return made


def tab(run: PhaseRun, name: str, query: str = "") -> str:
    return reverse("run-detail", args=[run.pk, name]) + query


def test_other_weights_are_tried_by_hand_and_kept_in_the_address(site: Site, run: PhaseRun) -> None:
    page = site.open(tab(run, "rewards"))
    numbers = page.locator("[data-reweigh] [data-numbers]")
    expect(numbers).to_contain_text("0 of 6 groups")
    page.get_by_label("Weight of solution accuracy").fill("0")
    page.get_by_label("Weight of efficiency").fill("1")
    expect(numbers).to_contain_text("3 of 6 groups")
    expect(page.locator("[data-examples]")).to_contain_text("would be")
    assert "weights=" in page.url and "weights=" in (page.locator("[data-start]").get_attribute("href") or "")
    page.reload()
    expect(numbers).to_contain_text("3 of 6 groups")
    expect(page.get_by_label("Weight of efficiency")).to_have_value("1")
    page.locator("[data-reset]").click()
    expect(numbers).to_contain_text("0 of 6 groups")


def test_a_prompt_is_followed_over_the_steps_and_back(site: Site, run: PhaseRun) -> None:
    page = site.open(tab(run, "rollouts"))
    expect(page.locator(".reward-words").first).to_contain_text("efficiency 0.30")
    page.locator(".rollout-group", has_text="1+1=").locator("[data-follow-prompt]").click()
    followed = page.locator("[data-followed]")
    expect(followed.locator(".rollout-group")).to_have_count(3)
    expect(followed).to_contain_text("asked 3 times in 3 steps")
    assert "follow=3.0" in page.url
    page.reload()
    expect(followed.locator(".rollout-group")).to_have_count(3)
    page.locator("[data-followed-close]").click()
    expect(page.locator("[data-step-view] .rollout-group")).to_have_count(2)
    page.locator("[name=groups]").select_option("spread")
    expect(page.locator("[data-step-view] .rollout-group").first).to_contain_text("3+7=")


def test_the_whole_log_is_searched_by_text_and_rank_and_read_backwards(site: Site, run: PhaseRun) -> None:
    page = site.open(tab(run, "logs"))
    lines = page.locator(".log-line")
    expect(lines.last).to_have_text("Warning: slow disk")
    before = lines.count()
    page.locator("[data-older]").click()
    page.wait_for_function("(n) => document.querySelectorAll('.log-line').length > n", arg=before)
    page.locator("[name=q]").fill("STEP 17,")
    expect(lines).to_have_count(1)
    expect(lines.locator("mark")).to_have_text("step 17,")
    page.locator("[name=rank]").select_option("0")
    expect(page.locator("[data-note]")).to_have_text("No line of this log fits.")
    page.locator("[name=q]").fill("")
    expect(page.locator("[data-count]")).to_contain_text("3000 lines, the newest 1000 are shown")
    assert "rank=0" in page.url and "q=" not in page.url


def test_experts_over_the_steps_by_layer(site: Site, run: PhaseRun) -> None:
    page = site.open(tab(run, "experts"))
    drawn = "(key) => document.querySelector(`[data-plot=${key}]`).data?.[0]?.z?.length"
    page.wait_for_function(f"() => ({drawn})('load-history') === 4 && ({drawn})('violation-history') === 2")
    page.locator("[data-layer]").select_option(label="2")
    page.wait_for_function("() => document.querySelector('[data-plot=load-history]').data[0].z[0].every((v) => v === 0.25)")
    assert "layer=1" in page.url


def test_a_text_is_routed_token_by_token(site: Site, run: PhaseRun, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is not started here: its answer comes while the page waits."""
    monkeypatch.setattr("training_app.routes.send_on_commit", lambda *_args, **_options: None)
    Checkpoint.objects.create(run=run, attempt=run.attempts.get(), step=3)
    page = site.open(tab(run, "experts"))
    expect(page.get_by_label("Prompt")).to_have_value("1+1=")
    page.get_by_role("button", name="Follow its tokens").click()
    expect(page.locator("[data-routes-words]")).to_contain_text("reads the text")
    page.wait_for_function("() => location.search.includes('routed=')")
    told = {"tokens": ["1", "+", "1", "="], "num_experts": 4, "experts": [[[0, 1]] * 4, [[3, 2], [1, 0], [3, 0], [2, 3]]],
            "weights": [[[0.6, 0.4]] * 4] * 2, "entropy": [[0.9] * 4] * 2,
            "domains": [{"domain": "this text", "num_texts": 1, "num_tokens": 4, "loads": [[0.5, 0.5, 0, 0]] * 2}]}  # fmt: skip
    directory = route_dir(RoutedText.objects.get())
    directory.mkdir(parents=True)
    write_json(directory / "out.json", told)
    tokens = page.locator("[data-routes-tokens] span")
    expect(tokens).to_have_count(4)
    page.locator("[data-routes-layer]").select_option(label="2")
    tokens.nth(1).hover()
    expect(page.locator("[data-routes-hover]")).to_contain_text("expert 1 (0.60), expert 0 (0.40)")
    page.reload()
    expect(tokens).to_have_count(4)


def test_a_rule_shows_the_fields_of_its_kind(site: Site) -> None:
    page = site.open(reverse("alert-rules"))
    page.get_by_label("Calls when").select_option("stall")
    expect(page.get_by_label("Seconds without a word")).to_be_visible()
    expect(page.get_by_label("Number")).to_be_hidden()
    page.get_by_label("Calls when").select_option("above")
    expect(page.get_by_label("Number")).to_be_visible()
    expect(page.get_by_label("Seconds without a word")).to_be_hidden()
