"""How a revision takes over: shares of the requests, steps, evidence, rollback, two editors at once."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connections, transaction
from django.utils import timezone

from model_core.errors import CheckpointError, ConfigError
from r1platform.models import Project
from serving_app import services
from serving_app.gateway.routing import OPENING_CHARS, SLACK, Busy, Upstream, opening_of, read_routes
from serving_app.gateway.usage import USAGE
from serving_app.models import Deployment, DeploymentRevision, Replica, RevisionTransition, UsageRecord
from serving_app.observed import coming_revision, current_revision
from serving_app.shifting import ShiftPlan
from serving_app.takeover import takeover_step
from tests.serving_app.conftest import ENGINE_KEY, Served, deploy, key_of, until
from tests.serving_app.engine_server import Engine
from tests.serving_app.test_gateway import ask, chat
from training_app.models import Checkpoint

pytestmark = pytest.mark.django_db
for_real = pytest.mark.django_db(transaction=True)
PLAN = {"step_requests": 4, "step_seconds": 0}


@pytest.fixture
def first(project: Project, checkpoint: Checkpoint) -> Deployment:
    """“sums” with a ready revision 1 at an address where nobody is."""
    return deploy(project, checkpoint, urls=("http://127.0.0.1:9",))


def revise(deployment: Deployment, user: User, **plan: Any) -> DeploymentRevision:
    return services.revision_create(deployment=deployment, user=user, plan=PLAN | plan)


def replica_of(revision: DeploymentRevision, **fields: Any) -> Replica:
    number = revision.replicas.count() + 1
    values = {"state": "ready", "base_url": "http://127.0.0.1:9", "engine_key": ENGINE_KEY, "ready_at": timezone.now()}
    return Replica.objects.create(revision=revision, number=number, **values | fields)


def answered(revision: DeploymentRevision, number: int, **fields: Any) -> None:
    for _ in range(number):
        UsageRecord.objects.create(revision=revision, deployment=revision.deployment, model_name="sums", **fields)


def now(revision: DeploymentRevision) -> tuple[str, int]:
    """Its state and share after a round of the reconciler."""
    takeover_step(revision.deployment_id)
    revision.refresh_from_db()
    return revision.state, revision.share


def test_revision_goes_from_step_to_step_on_evidence(first: Deployment, alice: User) -> None:
    before, made = current_revision(first), revise(first, alice)
    assert now(made) == ("warming", 0), "it has no replica yet"
    replica_of(made)
    assert now(made) == ("shifting", 10)
    answered(made, 3)
    answered(made, 9, status=400)
    answered(made, 9, status=499)
    answered(made, 9, status=500)
    assert now(made) == ("shifting", 10), "callers' mistakes, callers that left and ends of the platform are no evidence"
    answered(made, 1)
    assert now(made) == ("shifting", 50)
    assert now(made) == ("shifting", 50), "what it answered before the step does not count for it"
    answered(made, 4)
    assert now(made) == ("current", 100)
    assert before is not None and now(before) == ("retired", 0)
    moves = [(one.before, one.after, one.reason) for one in made.transitions.all()]
    assert [after for _before, after, _reason in moves] == ["shifting", "shifting", "current"]
    assert moves[1][2].startswith("50 % of the requests. 4 healthy answers at 10 % in")
    assert before.transitions.get().reason == "Revision 2 has taken over."


@pytest.mark.parametrize(
    ("plan", "records", "words"),
    [
        ({}, [(10, 200, 0.1), (3, 502, None)], "3 of 13 answers were errors (23%); 5% are allowed."),
        ({"max_ttft_seconds": 0.5}, [(3, 200, 0.75)], "The first token took 0.75 s on average; 0.5 s are allowed."),
    ],
)
def test_revision_whose_answers_are_bad_is_rolled_back_with_the_reason(
    first: Deployment, alice: User, plan: dict[str, Any], records: list[Any], words: str
) -> None:
    made = revise(first, alice, **plan)
    replica_of(made)
    assert now(made) == ("shifting", 10)
    for number, status, ttft in records:
        answered(made, number, status=status, ttft_seconds=ttft)
    assert now(made) == ("rolled_back", 0) and made.state_reason == words
    assert current_revision(first).number == 1 and coming_revision(first) is None  # type: ignore[union-attr]


@pytest.mark.parametrize("state", ["unreachable", "failed", "lost"])
def test_revision_whose_replica_falls_while_it_takes_over_is_rolled_back(
    first: Deployment, alice: User, state: str
) -> None:
    """Also one that was ready for long: what falls under a tenth of the requests will not hold all of them."""
    made = revise(first, alice)
    replica = replica_of(made, ready_at=timezone.now() - timedelta(hours=1))
    assert now(made) == ("shifting", 10)
    ended = None if state == "unreachable" else timezone.now()
    services.replica_transition(replica=replica, to=state, reason="CUDA error.", fields={"finished_at": ended})
    assert now(made) == ("rolled_back", 0)
    assert made.state_reason == f"Replica 1 is {state}. CUDA error."


def test_chance_errors_hold_a_step_and_do_not_roll_back(first: Deployment, alice: User) -> None:
    made = revise(first, alice)
    replica_of(made)
    now(made)
    answered(made, 8)
    answered(made, 1, status=502)
    assert now(made) == ("shifting", 10), "11 % of its answers are errors, and they are only one"
    answered(made, 11)
    assert now(made) == ("shifting", 50)


def test_plans_by_hand_wait_and_at_once_has_no_steps(first: Deployment, alice: User) -> None:
    made = revise(first, alice, mode="by_hand")
    with pytest.raises(ConfigError, match="Revision 2 is not ready") as caught:
        services.revision_shift(deployment=first, user=alice, number=2, share=10)
    assert caught.value.field == "share"
    replica_of(made)
    assert now(made) == ("warming", 0)
    services.revision_shift(deployment=first, user=alice, number=2, share=30, reason="A look.")
    answered(made, 50)
    assert now(made) == ("shifting", 30)
    services.revision_shift(deployment=first, user=alice, number=2, share=100)
    assert now(made) == ("current", 100)
    told = [(one.user, one.reason) for one in made.transitions.all()]
    assert told == [(alice, "30 % of the requests. A look."), (alice, f"Shifted by {alice.get_username()}.")]
    third = revise(first, alice, mode="at_once")
    replica_of(third)
    assert now(third) == ("current", 100)


def test_people_roll_back_on_the_way_and_to_any_earlier_revision(first: Deployment, alice: User) -> None:
    second = revise(first, alice, mode="at_once")
    replica_of(second)
    assert now(second) == ("current", 100)
    third = revise(first, alice)
    replica_of(third)
    now(third)
    services.revision_rollback(deployment=first, user=alice, reason="It counts wrong.")
    assert now(third) == ("rolled_back", 0) and third.state_reason == "It counts wrong."
    assert now(second) == ("current", 100), "the present one never stopped"
    services.revision_rollback(deployment=first, user=alice, number=1, reason="The old one was better.")
    oldest = first.revisions.get(number=1)
    Replica.objects.filter(revision=oldest).update(state="stopped", stop_wanted=True, finished_at=timezone.now())
    assert now(oldest) == ("warming", 0), "it is started again first"
    replica_of(oldest)
    assert now(oldest) == ("current", 100) and now(second) == ("retired", 0)
    last = RevisionTransition.objects.filter(revision=oldest, after="warming").get()
    assert last.user == alice and last.reason == "Back to it from revision 2. The old one was better."
    gone = second.checkpoint
    type(gone).objects.filter(pk=gone.pk).update(removed_at=timezone.now())
    with pytest.raises(CheckpointError, match="was removed from disk"):
        services.revision_rollback(deployment=first, user=alice, number=2)
    for number in (None, 1, 9):
        with pytest.raises(ConfigError, match="nothing to go back to") as caught:
            services.revision_rollback(deployment=first, user=alice, number=number)
        assert caught.value.field == "revision"


def test_second_revision_on_the_way_is_refused(first: Deployment, alice: User, bob: User) -> None:
    made = revise(first, alice)
    with pytest.raises(ConfigError, match=r"Revision 2 is warming up\. Let it take over or roll it back first"):
        revise(first, bob)
    with pytest.raises(ConfigError, match="Revision 7 is not taking over") as caught:
        services.revision_shift(deployment=first, user=bob, number=7, share=100)
    assert caught.value.field == "revision"
    for share in (0, 101, -5):
        with pytest.raises(ConfigError, match="1 to 100 percent"):
            services.revision_shift(deployment=first, user=bob, number=2, share=share)
    with pytest.raises(ConfigError, match=r"steps rise and lie between 1 and 99") as caught:
        ShiftPlan.parse({"steps": [50, 10]}, prefix="plan")
    assert caught.value.field == "plan.steps" and made.state == "warming"
    with pytest.raises(IntegrityError), transaction.atomic():
        DeploymentRevision.objects.create(
            deployment=first, number=3, checkpoint=made.checkpoint, engine="stub", state="warming", share=0
        )


@for_real
def test_two_editors_and_the_round_at_once_leave_one_truth(first: Deployment, alice: User, bob: User) -> None:
    """Shift to all, roll back and the round race; whoever is first wins, and one revision is current at every moment."""
    for _ in range(5):
        made = revise(first, alice)
        replica_of(made)
        now(made)
        answered(made, 4)
        start = threading.Barrier(3)
        errors: list[Exception] = []

        def racing(verb: Any, start: threading.Barrier = start, errors: list[Exception] = errors) -> None:
            start.wait(timeout=10)
            try:
                verb()
            except ConfigError as error:
                errors.append(error)
            finally:
                connections.close_all()

        verbs = (
            lambda made=made: services.revision_shift(deployment=first, user=alice, number=made.number, share=100),
            lambda: services.revision_rollback(deployment=first, user=bob),
            lambda: takeover_step(first.pk),
        )
        threads = [threading.Thread(target=racing, args=(verb,)) for verb in verbs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
        made.refresh_from_db()
        assert made.state in {"current", "rolled_back"} and len(errors) <= 1, errors
        assert first.revisions.filter(state="current").count() == 1 and coming_revision(first) is None
        moves = [(one.before, one.after) for one in made.transitions.all()]
        assert all(one[1] == other[0] for one, other in itertools.pairwise(moves)), "history has no gap"


def test_nothing_that_runs_means_nothing_to_protect(first: Deployment, alice: User) -> None:
    Replica.objects.all().update(state="stopped", finished_at=timezone.now())
    services.deployment_stop(deployment=first, user=alice)
    made = revise(first, alice)
    assert now(made) == ("current", 100) and made.state_reason == "Nothing ran when it was chosen."


def test_a_stop_in_mid_shift_keeps_the_shift(first: Deployment, alice: User) -> None:
    made = revise(first, alice)
    replica_of(made)
    assert now(made) == ("shifting", 10)
    services.deployment_stop(deployment=first, user=alice)
    answered(made, 4)
    assert now(made) == ("shifting", 10), "nothing moves while it is stopped"


def test_shares_are_exact_and_even() -> None:
    busy = Busy()
    upstreams = tuple(Upstream(n, "", "", "stub", revision_id=revision, share=share) for n, revision, share in ((1, 1, 90), (2, 1, 90), (3, 2, 10)))
    chosen = [busy.order(upstreams)[0].revision_id for _ in range(1000)]
    assert Counter(chosen) == {1: 900, 2: 100}
    assert all(chosen[at : at + 10].count(2) == 1 for at in range(0, 1000, 10)), "one of any ten, not a hundred at the end"
    assert {one.revision_id for one in busy.order(upstreams)} == {1, 2}, "the other revision is what is left when one is gone"


def test_an_opening_stays_with_its_replica_until_that_is_busy() -> None:
    busy = Busy()
    replicas = tuple(Upstream(n, "", "", "stub", 1, 100) for n in range(1, 5))
    openings = [f"conversation {n}".encode() for n in range(400)]
    homes = {opening: busy.order(replicas, opening)[0].replica_id for opening in openings}
    assert all(busy.order(replicas, opening)[0].replica_id == home for opening, home in homes.items())
    assert all(70 < number < 130 for number in Counter(homes.values()).values()), "openings spread evenly"
    fewer = tuple(one for one in replicas if one.replica_id != 4)
    assert all(busy.order(fewer, opening)[0].replica_id == home for opening, home in homes.items() if home != 4)
    busy.running[homes[openings[0]]] = SLACK + 1
    assert busy.order(replicas, openings[0])[0].replica_id != homes[openings[0]]


def test_the_opening_is_what_stays_from_turn_to_turn() -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    later = [*turns, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And now?"}]
    assert opening_of({"messages": turns}) == opening_of({"messages": later}) != opening_of({"messages": later[2:]})
    beginning = "x" * OPENING_CHARS
    assert opening_of({"prompt": beginning}) == opening_of({"prompt": beginning + "y"}) != opening_of({"prompt": beginning[1:]})


@pytest.fixture
def second_engine() -> Iterator[Engine]:
    made = Engine(key=ENGINE_KEY, name="sums")
    served = Served(made.app())
    made.url = served.url  # type: ignore[attr-defined]
    yield made
    served.stop()


@for_real
def test_gateway_sends_the_share_and_books_it_on_the_revision(
    web: Served, alice: User, deployment: Deployment, engine: Engine, second_engine: Engine
) -> None:
    """Errors of the new revision come to nine of ten callers never, and to the reconciler always."""
    made = revise(deployment, alice)
    replica_of(made, base_url=second_engine.url)  # type: ignore[attr-defined]
    assert now(made) == ("shifting", 10)
    key = key_of(alice)
    until(lambda: len(read_routes()["sums"].upstreams) == 2)
    assert {ask(web, key, chat("say hi")).status_code for _ in range(20)} == {200}
    assert (len(engine.bodies), len(second_engine.bodies)) == (18, 2)
    second_engine.failed = True
    statuses = Counter(ask(web, key, chat("say hi")).status_code for _ in range(40))
    assert statuses == {200: 36, 502: 4}
    USAGE.flush()
    assert list(UsageRecord.objects.filter(revision=made).order_by("id").values_list("status", flat=True)) == [200] * 2 + [502] * 4
    assert now(made) == ("rolled_back", 0) and made.state_reason.startswith("4 of 6 answers were errors (67%)")
    assert {ask(web, key, chat("say hi")).status_code for _ in range(20)} == {200}
