"""The run pages: who sees them, what they say in each state, filters, sorting, and a cost that does not grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from model_core.config import RunConfig
from r1platform.models import Node, Project
from tests.pages.b_rows import RESULT, make_checkpoint, make_event, make_launch, make_run
from training_app.models import PhaseRun, RunTransition
from training_app.states import RunState
from training_app.views import run_code, run_words
from training_app.views.runs_page import TABS, flat_differences

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(project: Project, node: Node) -> PhaseRun:
    made = make_run(project, launch=make_launch(project), summary={"perf/tok_s": 7140.0}, num_tokens=9000)
    make_checkpoint(made, node)
    return made


@pytest.mark.parametrize("tab", ["", *TABS])
def test_members_see_each_tab_and_strangers_do_not_learn_that_it_exists(
    tab: str, run: PhaseRun, client_alice: Client, client_bob: Client, client_charlie: Client, client: Client
) -> None:
    address = reverse("run-detail", args=[run.pk, tab] if tab else [run.pk])
    assert client_alice.get(address).status_code == 200
    assert client_bob.get(address).status_code == 200
    assert client_charlie.get(address).status_code == 404
    assert client.get(address).status_code == 302


def test_an_unknown_tab_is_not_found(run: PhaseRun, client_alice: Client) -> None:
    assert client_alice.get(f"/runs/{run.pk}/secrets/").status_code == 404


def test_the_header_alone_is_guarded_as_the_page(run: PhaseRun, client_bob: Client, client_charlie: Client) -> None:
    address = reverse("run-header", args=[run.pk])
    assert b'data-part="stats"' in client_bob.get(address).content
    assert client_charlie.get(address).status_code == 404


def test_a_viewer_is_offered_no_button(run: PhaseRun, client_bob: Client, client_erin: Client) -> None:
    address = reverse("run-detail", args=[run.pk])
    assert b"/act/" not in client_bob.get(address).content
    assert reverse("run-act", args=[run.pk, "stop"]).encode() in client_erin.get(address).content


def test_stopping_asks_first_and_then_says_what_happens(run: PhaseRun, client_erin: Client) -> None:
    page = client_erin.get(reverse("run-detail", args=[run.pk])).content.decode()
    assert "It writes a checkpoint, ends and frees its device." in page
    answer = client_erin.post(reverse("run-act", args=[run.pk, "stop"]), follow=True)
    run.refresh_from_db()
    assert run.desired == "stop"
    assert "Asked to stop" in answer.content.decode()


def test_what_is_not_possible_now_is_a_sentence(project: Project, client_erin: Client) -> None:
    done = make_run(project, state="succeeded", result=RESULT)
    answer = client_erin.post(reverse("run-act", args=[done.pk, "resume"]), follow=True)
    assert answer.status_code == 200
    assert "Succeeded" in answer.content.decode()


def test_overriding_a_gate_needs_a_reason(project: Project, client_erin: Client) -> None:
    held = make_run(
        project, state="gate_failed", gate_verdict="held", gate_threshold=0.85, gate_metric="quality_low", result=RESULT
    )
    answer = client_erin.post(reverse("run-act", args=[held.pk, "override"]), {"reason": "  "}, follow=True)
    assert "Say why" in answer.content.decode()
    held.refresh_from_db()
    assert held.state == "gate_failed"
    client_erin.post(reverse("run-act", args=[held.pk, "override"]), {"reason": "Good enough for the demo."})
    held.refresh_from_db()
    assert held.state == "succeeded" and held.gate_verdict == "overridden"
    assert RunTransition.objects.filter(run=held, user__username="erin", reason__contains="Good enough").exists()


@pytest.mark.parametrize("state", RunState.values)
def test_every_state_is_worded(state: str, project: Project, client_alice: Client) -> None:
    made = make_run(project, state=state, state_reason="Because of a test.", waiting_reason="Waits for a device.")
    page = client_alice.get(reverse("run-detail", args=[made.pk])).content.decode()
    assert RunState(state).label in page
    for tab in TABS:
        assert client_alice.get(reverse("run-detail", args=[made.pk, tab])).status_code == 200


def test_a_failed_run_says_what_why_and_where(project: Project, client_alice: Client) -> None:
    error = {
        "type": "TrainingError",
        "message": "The loss became NaN at step 41. Lower the learning rate.",
        "field": "phase_config.lr",
    }
    made = make_run(project, state="failed", result={"error": error})
    page = client_alice.get(reverse("run-detail", args=[made.pk])).content.decode()
    assert error["message"] in page and "phase_config.lr" in page


def test_a_fallback_is_shown(run: PhaseRun, node: Node, client_alice: Client) -> None:
    make_event(run, node, 1, "fallback", message="Experts run <one> by one.")
    assert "Experts run &lt;one&gt; by one." in client_alice.get(reverse("run-detail", args=[run.pk])).content.decode()


def test_best_last_and_removed_checkpoints_are_told_apart(run: PhaseRun, node: Node, client_alice: Client) -> None:
    from django.utils import timezone

    make_checkpoint(run, node, 12, metrics={"quality": 0.9})
    make_checkpoint(run, node, 18, metrics={"quality": 0.8}, is_final=True)
    make_checkpoint(run, node, 3, metrics={"quality": 0.99}, removed_at=timezone.now())
    context = client_alice.get(reverse("run-detail", args=[run.pk, "checkpoints"])).context
    told = {row["checkpoint"].step: (row["is_best"], row["is_last"]) for row in context["rows"]}
    assert told[12] == (True, False) and told[3] == (False, False) and told[18][0] is False
    assert context["kept"] == 3


def test_configurations_are_compared_setting_by_setting(project: Project, run: PhaseRun, client_alice: Client) -> None:
    other = make_run(project, config={**run.config, "seed": 7, "only_there": {"a": 1}})
    page = client_alice.get(reverse("run-detail", args=[run.pk, "config"]), {"with": other.pk})
    assert ("seed", "0", "7") in page.context["differences"]
    assert ("only_there", "not set", '{"a": 1}') in page.context["differences"]
    assert list(flat_differences(run.config, run.config)) == []


def test_a_run_of_others_cannot_be_compared_with(run: PhaseRun, charlie: Any, client_alice: Client) -> None:
    theirs = make_run(Project.objects.get(memberships__user=charlie))
    assert client_alice.get(reverse("run-detail", args=[run.pk, "config"]), {"with": theirs.pk}).status_code == 404


def test_the_list_shows_the_project_and_nothing_of_others(
    run: PhaseRun, charlie: Any, client_bob: Client, client_charlie: Client, client: Client
) -> None:
    theirs = make_run(Project.objects.get(memberships__user=charlie), name="hidden elsewhere")
    page = client_bob.get("/runs/").content.decode()
    assert run.name in page and theirs.name not in page
    assert run.name not in client_charlie.get("/runs/").content.decode()
    assert client.get("/runs/").status_code == 302


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"q": "alpha"}, {"alpha"}),
        ({"q": "urgent"}, {"beta"}),
        ({"state": "failed"}, {"beta"}),
        ({"state": "live"}, {"alpha"}),
        ({"phase": "cold_start"}, {"gamma"}),
        ({"tag": "urgent"}, {"beta"}),
        ({"q": "zzz"}, set()),
        ({"q": "9" * 30}, set()),
        ({}, {"alpha", "beta", "gamma"}),
    ],
)
def test_filters(query: dict[str, str], names: set[str], project: Project, client_alice: Client) -> None:
    make_run(project, name="alpha")
    make_run(project, name="beta", state="failed", tags=["urgent"])
    make_run(project, name="gamma", phase="cold_start", state="succeeded", result=RESULT)
    found = client_alice.get("/runs/", query).context["rows"]
    assert {row["run"].name for row in found} == names


def test_filters_by_who_and_by_what_a_run_belongs_to(
    project: Project, node: Node, alice: Any, client_alice: Client, client_bob: Client
) -> None:
    first = make_run(project, name="alpha", created_by=alice, tags=["urgent", "sweep"], launch=make_launch(project))
    make_run(project, name="beta", tags=["urgent"], starts_from=make_checkpoint(first, node))

    def names(client: Client, query: str) -> set[str]:
        return {row["run"].name for row in client.get(f"/runs/?{query}").context["rows"]}

    assert names(client_alice, "who=me") == {"alpha"} and names(client_bob, "who=me") == set()
    assert names(client_alice, f"launch={first.launch_id}") == {"alpha"} and names(client_alice, f"from={first.pk}") == {"beta"}
    assert names(client_alice, "tag=urgent") == {"alpha", "beta"} and names(client_alice, "tag=urgent&tag=sweep") == {"alpha"}
    assert names(client_alice, "version=x") == set() and names(client_alice, "version=99999") == set()
    chips = client_alice.get("/runs/?tag=urgent&tag=sweep&page=3&q=a").context["chips"]
    assert [chip["without"] for chip in chips] == ["?tag=sweep&q=a", "?tag=urgent&q=a"]


def test_sorting_by_accuracy_puts_what_is_not_measured_last(project: Project, client_alice: Client) -> None:
    for name, accuracy in (("low", 0.2), ("none", None), ("high", 0.9)):
        make_run(project, name=name, result={"accuracy": accuracy} if accuracy else None)
    rows = client_alice.get("/runs/", {"sort": "accuracy"}).context["rows"]
    assert [row["run"].name for row in rows] == ["high", "low", "none"]


def test_an_empty_list_teaches_and_an_empty_search_leads_back(client_alice: Client) -> None:
    assert "A run is one phase of training" in client_alice.get("/runs/").content.decode()
    assert "No run fits" in client_alice.get("/runs/", {"q": "x"}).content.decode()


def test_the_live_part_is_the_table_alone(run: PhaseRun, client_alice: Client) -> None:
    part = client_alice.get("/runs/", headers={"X-Part": "live"}).content.decode()
    assert 'data-part="table"' in part and "<html" not in part


def test_the_cost_of_the_list_does_not_grow(
    project: Project, client_alice: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    launch = make_launch(project)
    for number in range(30):
        make_run(project, name=f"run {number}", launch=launch)
    client_alice.get("/runs/")
    with django_assert_max_num_queries(14):
        client_alice.get("/runs/")


def test_the_stats_strip_is_true(project: Project) -> None:
    made = make_run(
        project,
        result=RESULT,
        gate_threshold=0.85,
        gate_metric="quality_low",
        gate_verdict="passed",
        device_seconds=184.0,
        budget_device_seconds=420.0,
    )
    words = {stat.label: stat for stat in run_words.stats(made)}
    assert words["Held-out accuracy"].value == "96.1\u202f%" and words["Held-out accuracy"].change == "+46.1"
    assert words["Quality, lower bound"].detail == "gate 0.85, passed"
    assert words["Budget used"].value == "44 %" and words["Budget used"].fraction == pytest.approx(184 / 420)
    assert words["Throughput"].value == "–" and words["Expert balance"].value == "–"


def test_metrics_have_titles_units_and_meanings() -> None:
    words = run_words.metric_words(
        ["reward/efficiency/mean", "reward/efficiency/unscored", "eval/logical_consistency", "new_one"]
    )
    assert words["reward/efficiency/mean"]["title"] == "Efficiency"
    assert words["reward/efficiency/unscored"]["unit"] == "rollouts"
    assert words["eval/logical_consistency"]["title"] == "Logical consistency"
    assert words["new_one"]["title"] == "New one" and words["lr"]["title"] == "Learning rate"


def test_only_editors_make_single_runs(
    project: Project, client_erin: Client, client_bob: Client, client: Client
) -> None:
    assert client_erin.get(reverse("run-new")).status_code == 200
    assert client_bob.get(reverse("run-new")).status_code == 403
    assert client_bob.post(reverse("run-new"), {"name": "x"}).status_code == 403
    assert client.get(reverse("run-new")).status_code == 302


def test_a_clone_holds_the_values_of_its_run(run: PhaseRun, client_erin: Client, client_charlie: Client) -> None:
    page = client_erin.get(reverse("run-new"), {"clone": run.pk})
    assert page.context["phase"] == run.phase
    assert page.context["config"].fields["reward.weights.efficiency"].initial == 0.4
    assert client_charlie.get(reverse("run-new"), {"clone": run.pk}).status_code == 404


def test_a_setting_out_of_range_is_said_at_its_field_and_nothing_is_made(project: Project, client_erin: Client) -> None:
    address = f"{reverse('run-new')}?phase=cold_start"
    config = client_erin.get(address).context["config"]
    sent = {config.add_prefix(name): field.initial for name, field in config.fields.items()}
    sent = {name: value for name, value in sent.items() if value not in (None, False)}
    answer = client_erin.post(address, sent | {"name": "bad", "config-seed": "-1"})
    assert answer.status_code == 422 and "seed" in answer.context["config"].errors
    assert not PhaseRun.objects.exists()


@pytest.mark.parametrize(
    ("state", "verb", "after"),
    [("running", "stop", "stopping"), ("running", "pause", "stopping"), ("paused", "resume", "queued"), ("failed", "retry", "queued")],
)
def test_a_reason_is_asked_and_kept(state: str, verb: str, after: str, project: Project, client_erin: Client) -> None:
    made = make_run(project, state=state)
    assert f'id="run-{verb}"' in client_erin.get(reverse("run-detail", args=[made.pk])).content.decode()
    client_erin.post(reverse("run-act", args=[made.pk, verb]), {"reason": "  The loss rose. "})
    kept = RunTransition.objects.get(run=made, after=after)
    assert kept.reason.endswith("by erin: The loss rose.") and kept.user is not None


def test_the_configuration_is_told_as_command_code_and_request(run: PhaseRun, client_bob: Client) -> None:
    page = client_bob.get(reverse("run-detail", args=[run.pk, "config"])).content.decode()
    assert "python -m model_core train run" in page and "RunConfig.parse(" in page and "curl -X POST" in page


@pytest.mark.parametrize(
    "asked",
    [{"phase": "cold_start"}, {"phase": "reinforcement", "seed": 7, "reward": "r1", "phase_config": {"group_size": 4}},
     {"phase": "rejection_sampling", "model": "small", "gate": {"metric": "accuracy", "threshold": 0.5}}],
)  # fmt: skip
def test_a_short_configuration_says_the_same(asked: dict[str, Any]) -> None:
    whole = RunConfig.parse(asked).resolved()
    short = run_code.short_config(whole)
    assert RunConfig.parse(short).resolved() == whole and len(str(short)) < len(str(whole)) / 2
    assert run_code.short_config({"phase": "of long ago", "x": 1}) == {"phase": "of long ago", "x": 1}
