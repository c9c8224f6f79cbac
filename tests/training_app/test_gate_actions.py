"""What people do with a run that its gate holds: go on, try again with other settings, roll back; and who may."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from rest_framework.test import APIClient

from model_core.config import RunConfig
from model_core.errors import CheckpointError, ConfigError
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import AuditEntry, Node, Project
from r1platform.services import project_create
from tests.training_app.rows import make_attempt, make_run, make_version
from training_app import services
from training_app.models import Checkpoint, Launch, PhaseRun, Upload
from training_app.scheduling import final_checkpoint, schedule_once
from training_app.transitions import run_transition

API = "/api/v1"
PHASES: list[dict[str, Any]] = [
    {"phase": "cold_start", "name": "first", "gate_metric": "quality_low", "gate_threshold": 0.5},
    {"phase": "reinforcement", "name": "second", "starts_from": "first", "gate_metric": "accuracy_low", "gate_threshold": 0.8},
    {"phase": "reinforcement", "name": "third", "starts_from": "second"},
]
STEPS = {"phase_config": {"steps": 7, "warmup_steps": 1}}


def make_checkpoint(run: PhaseRun, node: Node, step: int, **values: Any) -> Checkpoint:
    attempt = run.attempts.first() or make_attempt(run, node, state="succeeded")
    return Checkpoint.objects.create(run=run, attempt=attempt, step=step, sha256="ab" * 32, **values)


def move(run: PhaseRun, *states: str) -> PhaseRun:
    for state in states:
        run_transition(run=run, to=state, reason=f"It is {state}.")
    run.refresh_from_db()
    return run


@pytest.fixture
def held(project: Project, alice: User, node: Node) -> PhaseRun:
    """The second phase of a launch, held at its gate; the first has left a checkpoint and it has three itself."""
    version = make_version(project)
    phases = [{**phase, "dataset_version": version} for phase in PHASES]
    plan = services.pipeline_create(project=project, user=alice, name="P", phases=phases)
    launch = services.pipeline_launch(pipeline=plan, user=alice)
    first, second = launch.runs.get(position=0), launch.runs.get(position=1)
    make_checkpoint(first, node, 20, is_final=True)
    move(first, "starting", "running", "succeeded")
    PhaseRun.objects.filter(pk=second.pk).update(starts_from=final_checkpoint(first))
    for step, quality in ((5, 0.6), (10, 0.7), (15, 0.4)):
        make_checkpoint(second, node, step, metrics={"quality": quality})
    make_checkpoint(second, node, 20, is_final=True)
    make_checkpoint(second, node, 3, removed_at="2026-01-01T00:00Z", metrics={"quality": 0.9})
    return move(second, "queued", "starting", "running", "gate_failed")


def now(run: PhaseRun) -> PhaseRun:
    return PhaseRun.objects.select_related("launch").get(pk=run.pk)


def states(launch: Launch) -> list[tuple[str, str]]:
    return list(launch.runs.order_by("position", "pk").values_list("name", "state"))


@pytest.mark.django_db
def test_the_choices_are_what_earlier_phases_left_and_then_the_best_of_its_own(held: PhaseRun) -> None:
    found = [(choice.run.name, choice.step) for choice in services.roll_back_choices(held)]
    assert found == [("first", 20), ("second", 10), ("second", 5), ("second", 15)]


@pytest.mark.django_db
@pytest.mark.parametrize("place", [0, 1])
def test_rolled_back_the_next_phase_starts_from_the_earlier_checkpoint(held: PhaseRun, erin: User, place: int) -> None:
    chosen = services.roll_back_choices(held)[place]
    services.gate_roll_back(run=held, user=erin, checkpoint=chosen, reason="It forgot how to add.")
    run = now(held)
    assert (run.state, run.gate_verdict, run.result_checkpoint) == ("succeeded", "rolled_back", chosen)
    assert f"Rolled back to step {chosen.step} of run {chosen.run_id}" in run.state_reason and "forgot" in run.state_reason
    moved = run.transitions.latest("id")
    assert (moved.before, moved.after, moved.user) == ("gate_failed", "succeeded", erin)
    assert run.launch is not None and run.launch.state == "running"
    entry = AuditEntry.objects.get(action="run.roll_back")
    assert entry.user == erin and entry.detail == {"reason": "It forgot how to add.", "checkpoint": chosen.pk}
    schedule_once()
    third = run.launch.runs.get(position=2)
    assert (third.state, third.starts_from) == ("starting", chosen)


@pytest.mark.django_db
def test_the_last_phase_rolled_back_ends_the_launch(held: PhaseRun, alice: User) -> None:
    assert held.launch is not None
    held.launch.runs.filter(position=2).delete()
    services.gate_roll_back(run=held, user=alice, checkpoint=services.roll_back_choices(held)[0], reason="Good as it was.")
    assert Launch.objects.get(pk=held.launch_id).state == "succeeded"


@pytest.mark.django_db
def test_only_an_earlier_checkpoint_that_is_there_can_be_rolled_back_to(
    held: PhaseRun, alice: User, project: Project, node: Node
) -> None:
    elsewhere = make_checkpoint(make_run(project, alice, state="succeeded"), node, 9)
    removed, final = held.checkpoints.get(step=3), held.checkpoints.get(is_final=True)
    for wrong in (elsewhere, removed, final):
        with pytest.raises(CheckpointError) as refused:
            services.gate_roll_back(run=held, user=alice, checkpoint=wrong, reason="why not")
        assert refused.value.field == "checkpoint"
    with pytest.raises(ConfigError) as unreasoned:
        services.gate_roll_back(run=held, user=alice, checkpoint=services.roll_back_choices(held)[0], reason="  ")
    assert unreasoned.value.field == "reason"
    assert now(held).state == "gate_failed" and not AuditEntry.objects.filter(action="run.roll_back").exists()


@pytest.mark.django_db
def test_a_single_run_rolls_back_to_its_own_checkpoints(project: Project, alice: User, node: Node) -> None:
    run = make_run(project, alice, state="gate_failed", gate_metric="quality", gate_threshold=0.9, gate_verdict="held")
    early = make_checkpoint(run, node, 5)
    services.gate_roll_back(run=run, user=alice, checkpoint=early, reason="It got worse.")
    assert now(run).state == "succeeded" and final_checkpoint(now(run)) == early


@pytest.mark.django_db
def test_another_run_with_other_settings_stands_in_for_a_held_one(held: PhaseRun, erin: User) -> None:
    config = services.changed(held.config, STEPS)
    made = services.run_retry_changed(run=held, user=erin, config=config)
    assert made.retry_of == held and held.retried_as == made and now(held).state == "gate_failed"
    for name in ("phase", "name", "launch", "pipeline_phase", "position", "dataset_version", "starts_from", "gate_metric",
                 "gate_threshold", "gate_action", "budget_device_seconds"):  # fmt: skip
        assert getattr(made, name) == getattr(now(held), name), name
    assert made.config["phase_config"]["steps"] == 7 and made.config["seed"] == held.config["seed"]
    assert (made.created_by, made.gate_verdict) == (erin, "pending")
    launch = Launch.objects.get(pk=held.launch_id)
    assert launch.state == "running" and f"as run {made.pk}" in launch.transitions.latest("id").reason
    assert AuditEntry.objects.get(action="run.retry_changed").detail == {"made": made.pk}
    assert schedule_once() == 1
    assert states(launch) == [("first", "succeeded"), ("second", "gate_failed"), ("second", "starting"), ("third", "waiting")]


@pytest.mark.django_db
def test_the_launch_follows_the_run_that_stands_in(held: PhaseRun, alice: User, node: Node) -> None:
    made = services.run_retry_changed(run=held, user=alice, config=services.changed(held.config, STEPS))
    made = move(made, "starting", "running", "gate_failed")
    launch = Launch.objects.get(pk=held.launch_id)
    assert launch.state == "held" and launch.state_reason == "second: It is gate_failed."
    services.launch_resume(launch=launch, user=alice)
    assert states(launch)[1:3] == [("second", "gate_failed"), ("second", "queued")]
    make_checkpoint(made, node, 7, is_final=True)
    move(now(made), "starting", "running", "succeeded")
    schedule_once()
    assert launch.runs.get(position=2).starts_from == made.checkpoints.get(step=7)
    move(launch.runs.get(position=2), "running", "succeeded")
    launch.refresh_from_db()
    assert launch.state == "succeeded"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, "config"),
        ({"phase_config": {"steps": 0}}, "phase_config.steps"),
        ({"phase_config": {"stepz": 1}}, "phase_config.stepz"),
        ({"colour": 1}, "colour"),
        ({"phase_config": 5}, "phase_config"),
        ({"gate": {"threshold": 0.1}}, "gate.metric"),
        ({"gate": {"metric": "luck"}}, "gate.metric"),
        ({"gate": 3}, "gate"),
    ],
)
def test_what_cannot_be_changed_is_refused_at_its_field(
    changes: dict[str, Any], field: str, held: PhaseRun, api_alice: APIClient
) -> None:
    answer = api_alice.post(f"{API}/runs/{held.pk}/retry/", {"config": changes}, format="json")
    assert answer.status_code == 400 and list(answer.json()["errors"]) == [field]
    assert PhaseRun.objects.count() == 3 and Launch.objects.get().state == "held"


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["failed", "lost", "stopped"])
def test_what_failed_may_be_tried_again_with_other_settings_too(state: str, project: Project, alice: User) -> None:
    run = make_run(project, alice, state=state)
    made = services.run_retry_changed(run=run, user=alice, config=services.changed(run.config, {"seed": 5}))
    assert made.state == "queued" and made.config["seed"] == 5 and made.launch is None
    for verb in (services.run_retry, lambda **who: services.run_retry_changed(config={**run.config, "seed": 6}, **who)):
        with pytest.raises(IllegalTransition):
            verb(run=run, user=alice)
    assert PhaseRun.objects.filter(project=project).count() == 2


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "paused"])
def test_what_runs_or_succeeded_is_not_replaced(state: str, project: Project, alice: User) -> None:
    run = make_run(project, alice, state=state)
    with pytest.raises(services.NotHeld):
        services.run_retry_changed(run=run, user=alice, config=services.changed(run.config, {"seed": 5}))


def body_of(verb: str, held: PhaseRun) -> dict[str, Any]:
    back = services.roll_back_choices(held)[0].pk
    return {"override-gate": {"reason": "enough"}, "roll-back": {"reason": "worse", "checkpoint": back},
            "retry": {"config": STEPS}}[verb]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("verb", ["override-gate", "roll-back", "retry"])
def test_a_held_run_is_steered_by_owners_and_editors_alone(
    verb: str, held: PhaseRun, api_alice: APIClient, api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient,
    api_anonymous: APIClient,
) -> None:  # fmt: skip
    url, body = f"{API}/runs/{held.pk}/{verb}/", body_of(verb, held)
    for client, status in ((api_anonymous, 401), (api_charlie, 404), (api_bob, 403)):
        assert client.post(url, body, format="json").status_code == status
        assert now(held).state == "gate_failed" and PhaseRun.objects.count() == 3
    answer = api_erin.post(url, body, format="json")
    assert answer.status_code == (201 if verb == "retry" else 200), answer.json()
    late = api_alice.post(url, body, format="json")
    assert late.status_code == 409 and "by erin" in late.json()["detail"] and "Nothing was changed" in late.json()["detail"]
    run = api_bob.get(f"{API}/runs/{held.pk}/").json()
    if verb == "retry":
        assert run["retried_as"] == answer.json()["id"] and answer.json()["retry_of"] == held.pk
    assert run["result_checkpoint"] == (body.get("checkpoint"))


@pytest.mark.django_db
def test_choices_are_shown_to_members(held: PhaseRun, api_bob: APIClient, api_charlie: APIClient) -> None:
    url = f"{API}/runs/{held.pk}/roll-back-choices/"
    assert [choice["step"] for choice in api_bob.get(url).json()] == [20, 10, 5, 15]
    assert api_charlie.get(url).status_code == 404


@pytest.mark.django_db
def test_a_checkpoint_of_others_is_no_choice(held: PhaseRun, api_alice: APIClient, charlie: User, node: Node) -> None:
    theirs = make_run(Project.objects.get(name="Elsewhere"), charlie, state="succeeded")
    body = {"reason": "x", "checkpoint": make_checkpoint(theirs, node, 1).pk}
    answer = api_alice.post(f"{API}/runs/{held.pk}/roll-back/", body, format="json")
    assert answer.status_code == 400 and list(answer.json()["errors"]) == ["checkpoint"]


def race(*acts: Callable[[], Any]) -> list[str]:
    """Runs all at once, each on a connection of its own; says of each "done", or the sentence that refused it."""
    barrier, outcomes = threading.Barrier(len(acts)), [""] * len(acts)

    def run(place: int, act: Callable[[], Any]) -> None:
        try:
            barrier.wait(timeout=10)
            act()
            outcomes[place] = "done"
        except IllegalTransition as error:
            outcomes[place] = str(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[place, act]) for place, act in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return outcomes


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "pair", [("override", "override"), ("override", "change"), ("change", "change"), ("roll_back", "resume"), ("override", "retry")]
)
def test_of_two_at_once_one_wins_and_the_other_is_told(pair: tuple[str, str], held: PhaseRun, alice: User, erin: User) -> None:
    assert held.launch is not None
    launch, back = held.launch, services.roll_back_choices(held)[0]
    config = services.changed(held.config, STEPS)

    def act(verb: str, user: User) -> Callable[[], Any]:
        return {
            "override": lambda: services.gate_override(run=held, user=user, reason="enough"),
            "change": lambda: services.run_retry_changed(run=held, user=user, config=config),
            "roll_back": lambda: services.gate_roll_back(run=held, user=user, checkpoint=back, reason="worse"),
            "resume": lambda: services.launch_resume(launch=launch, user=user),
            "retry": lambda: services.run_retry(run=held, user=user),
        }[verb]

    outcomes = race(act(pair[0], alice), act(pair[1], erin))
    assert sorted(outcome == "done" for outcome in outcomes) == [False, True], outcomes
    refused = next(outcome for outcome in outcomes if outcome != "done")
    assert f"Run {held.pk} " in refused or "nothing to resume" in refused or f"Run {held.pk} is" in refused
    run, winner = now(held), pair[0] if outcomes[0] == "done" else pair[1]
    assert run.launch is not None and run.launch.state == "running"
    after = {"override": "succeeded", "roll_back": "succeeded", "change": "gate_failed", "resume": "queued", "retry": "queued"}
    assert run.state == after[winner]
    assert run.transitions.filter(before="gate_failed").count() == (0 if winner == "change" else 1)
    assert PhaseRun.objects.count() == (4 if winner == "change" else 3)
    assert AuditEntry.objects.filter(target=f"run:{held.pk}").count() == 1


@pytest.mark.django_db
def test_a_gate_of_a_single_run_is_that_of_its_configuration(project: Project, alice: User) -> None:
    config = {"gate": {"metric": "length_high", "threshold": 30, "direction": "at_most"}}
    run = services.run_create(
        project=project, user=alice, name="r", phase="cold_start", config=config, dataset_version=make_version(project))
    assert (run.gate_metric, run.gate_threshold, run.gate_direction) == ("length_high", 30, "at_most")
    assert run.gate_verdict == "pending" and RunConfig.parse(run.config).gate.name == "length"


@pytest.mark.django_db
def test_a_gate_is_changed_in_its_own_words_or_in_those_of_the_configuration(
    held: PhaseRun, project: Project, alice: User, api_alice: APIClient
) -> None:
    assert held.launch is not None
    url = f"{API}/pipelines/{held.launch.pipeline_id}/phases/{held.pipeline_phase_id}/"
    block = {"metric": "length_high", "threshold": 20, "direction": "at_most"}
    changed = api_alice.patch(url, {"config": {"gate": block}}, format="json").json()
    assert (changed["gate_metric"], changed["gate_threshold"], changed["gate_direction"]) == ("length_high", 20.0, "at_most")
    assert changed["config"]["gate"] == {**block, "stop_early": 0}
    back = api_alice.patch(url, {"gate_metric": "quality", "gate_threshold": 0.5, "gate_direction": "at_least"}, format="json").json()
    assert back["config"]["gate"]["metric"] == "quality" and back["gate_threshold"] == 0.5
    theirs = Upload.objects.create(
        project=project_create(user=alice, name="Other"), file_name="b.jsonl", format="jsonl", size_bytes=1, sha256="ab" * 32)
    for upload, said in ((theirs.pk, "no such upload"), (None, "has no file of it")):
        answer = api_alice.patch(url, {"gate_metric": "gsm8k", "benchmark_data": upload}, format="json")
        assert answer.status_code == 400 and said in answer.json()["errors"]["benchmark_data"][0]
