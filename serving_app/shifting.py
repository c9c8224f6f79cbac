"""How a new revision takes over: the plan, what has been measured at this step, and what follows from both.

Pure reading. `takeover.takeover_step` carries out what is decided here, in the round of the reconciler and from a person's
hand alike; so a shift lives in the database alone and goes on whoever dies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from django.db.models import Avg, Count, Q
from django.utils import timezone
from pydantic import Field, field_validator

from model_core.config import StrictModel
from serving_app.models import Deployment, DeploymentRevision, Replica, UsageRecord
from serving_app.observed import current_revision, given_up, recent_failures
from serving_app.states import ReplicaState, RevisionState

MIN_ERRORS = 3
"""Fewer errors than this are chance, whatever share of the requests they are."""
WHOLE = 100
"""Percent at which a revision has taken over."""


class ShiftPlan(StrictModel):
    """How a revision takes over from the one before it."""

    mode: Literal["automatic", "by_hand", "at_once"] = "automatic"
    """“automatic” goes from step to step by itself, “by_hand” waits for a person at each, “at_once” has no steps."""
    steps: list[int] = Field(default=[10, 50], max_length=8)
    """Percent of the requests that it answers at each step before all, rising, between 1 and 99."""
    step_requests: int = Field(20, ge=0, le=1_000_000)
    """Healthy answers that it must have given at a step before the next; 0 asks for none."""
    step_seconds: int = Field(60, ge=0, le=604_800)
    """Seconds that a step lasts at least."""
    max_error_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of its answers at a step that may be errors of the engine; with more, and at least three, it is rolled back."""
    max_ttft_seconds: float | None = Field(None, gt=0, le=3600)
    """Mean seconds to the first token at a step above which it is rolled back; empty: speed is not looked at."""

    @field_validator("steps")
    @classmethod
    def _rising(cls, steps: list[int]) -> list[int]:
        if any(not 1 <= step < WHOLE for step in steps) or sorted(set(steps)) != steps:
            raise ValueError(f"steps rise and lie between 1 and 99 percent, such as [10, 50]; they are {steps}")
        return steps


@dataclass(frozen=True)
class Measured:
    """What a revision has answered since its present step began."""

    num_healthy: int
    num_errors: int
    ttft_seconds: float | None
    seconds: float

    @property
    def error_fraction(self) -> float:
        return self.num_errors / max(1, self.num_healthy + self.num_errors)


@dataclass(frozen=True)
class Decision:
    """What is to become of a revision that is on its way: its state, its percent of the requests, and why."""

    to: str
    share: int
    reason: str


def measured(revision: DeploymentRevision) -> Measured:
    """Its answers at this step. An error is what the gateway says of an engine, a status above 500; what the caller did wrong
    or left, and what ended with the platform itself (500), counts as neither."""
    since = revision.step_started_at or revision.created_at
    rows = UsageRecord.objects.filter(revision=revision, created_at__gte=since)
    found = rows.aggregate(
        healthy=Count("id", filter=Q(status=200)), errors=Count("id", filter=Q(status__gt=500)), ttft=Avg("ttft_seconds")
    )
    return Measured(found["healthy"], found["errors"], found["ttft"], (timezone.now() - since).total_seconds())


def next_share(plan: ShiftPlan, share: int) -> int:
    """The percent of the step after `share`."""
    later = [step for step in plan.steps if step > share] if plan.mode != "at_once" else []
    return later[0] if later else WHOLE


def is_ready(deployment: Deployment, revision: DeploymentRevision, replicas: Sequence[Replica]) -> bool:
    """Whether as many of its replicas are ready as are wanted."""
    ready = [r for r in replicas if r.revision_id == revision.pk and r.state == ReplicaState.READY and not r.stop_wanted]
    return len(ready) >= max(1, deployment.desired_replicas)


def decide(deployment: Deployment, candidate: DeploymentRevision, replicas: Sequence[Replica]) -> Decision | None:
    """What follows for the revision on its way from the living `replicas` and from its answers; None: wait."""
    if why := _not_ready(candidate, replicas):
        return Decision(RevisionState.ROLLED_BACK, 0, why)
    if not is_ready(deployment, candidate, replicas):
        return None
    if _is_hopeless(deployment, replicas):
        return Decision(RevisionState.CURRENT, WHOLE, "It is ready, and the revision before it does not start any more.")
    plan = ShiftPlan.parse(candidate.plan)
    if candidate.state == RevisionState.WARMING:
        return _step(plan, 0, "Its replicas are ready.") if plan.mode != "by_hand" else None
    seen = measured(candidate)
    if why := _unhealthy(plan, seen):
        return Decision(RevisionState.ROLLED_BACK, 0, why)
    if plan.mode == "by_hand" or not _is_done(plan, seen):
        return None
    return _step(plan, candidate.share, f"{_answered(seen)} at {candidate.share} % in {seen.seconds:.0f} s.")


def _step(plan: ShiftPlan, share: int, reason: str) -> Decision:
    following = next_share(plan, share)
    return Decision(RevisionState.CURRENT if following == WHOLE else RevisionState.SHIFTING, following, reason)


def _is_hopeless(deployment: Deployment, replicas: Sequence[Replica]) -> bool:
    """Whether the current revision has nothing running and is not started any more."""
    now = current_revision(deployment)
    return now is not None and all(r.revision_id != now.pk for r in replicas) and given_up(recent_failures(now))


def _not_ready(candidate: DeploymentRevision, replicas: Sequence[Replica]) -> str:
    """Why its replicas will not do: none starts, or one that had requests failed or does not answer."""
    if candidate.state == RevisionState.WARMING:
        failures = recent_failures(candidate)
        return f"It does not start. {failures[0].state_reason}" if given_up(failures) else ""
    fallen = next((r for r in replicas if r.revision_id == candidate.pk and r.state == ReplicaState.UNREACHABLE), None)
    ended = candidate.replicas.filter(state__in=[ReplicaState.FAILED, ReplicaState.LOST])
    fallen = fallen or ended.filter(finished_at__gte=candidate.step_started_at).order_by("-id").first()
    if fallen is None:
        return ""
    return f"Replica {fallen.number} is {fallen.get_state_display().lower()}. {fallen.state_reason}".strip()


def _unhealthy(plan: ShiftPlan, seen: Measured) -> str:
    if seen.num_errors >= MIN_ERRORS and seen.error_fraction > plan.max_error_fraction:
        total = seen.num_healthy + seen.num_errors
        found = f"{seen.num_errors} of {total} answers were errors ({seen.error_fraction:.0%})"
        return f"{found}; {plan.max_error_fraction:.0%} are allowed."
    limit = plan.max_ttft_seconds
    if limit is not None and seen.ttft_seconds is not None and seen.num_healthy >= MIN_ERRORS and seen.ttft_seconds > limit:
        return f"The first token took {seen.ttft_seconds:.2f} s on average; {limit:g} s are allowed."
    return ""


def _is_done(plan: ShiftPlan, seen: Measured) -> bool:
    enough = seen.num_healthy >= plan.step_requests and seen.seconds >= plan.step_seconds
    return enough and seen.error_fraction <= plan.max_error_fraction


def _answered(seen: Measured) -> str:
    return "One healthy answer" if seen.num_healthy == 1 else f"{seen.num_healthy} healthy answers"
