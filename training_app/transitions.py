"""The only writers of the states of versions, launches, runs, attempts and evaluations.

A launch's state follows from its runs: every move of a run ends with `launch_refresh`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Coalesce, Now

from r1platform.lib.live import publish
from r1platform.lib.transitions import transition
from training_app.models import (
    DatasetVersion,
    Evaluation,
    EvaluationTransition,
    Launch,
    LaunchTransition,
    PhaseRun,
    RunAttempt,
    RunTransition,
    VersionTransition,
)
from training_app.states import (
    ATTEMPT_MOVES,
    EVALUATION_MOVES,
    LAUNCH_MOVES,
    LIVE_ATTEMPTS,
    LIVE_RUNS,
    MOVING_EVALUATIONS,
    RUN_MOVES,
    VERSION_MOVES,
    EvaluationState,
    LaunchState,
    RunState,
    VersionState,
)

Fields = Mapping[str, Any]
RUN_ENDS = frozenset({RunState.SUCCEEDED, RunState.GATE_FAILED, RunState.FAILED, RunState.LOST, RunState.STOPPED})


def version_transition(
    *, version: DatasetVersion, to: str, reason: str = "", user: User | None = None, fields: Fields | None = None
) -> bool:
    """Moves a dataset version and tells the overview. Raises IllegalTransition."""
    pk, project_id = version.pk, version.dataset.project_id
    times: dict[str, Any] = {"finished_at": Now()} if to not in VERSION_MOVES else {}

    def tell() -> None:
        publish(
            f"overview.{project_id}", "version", version=pk, dataset=version.dataset_id, state=str(to), reason=reason
        )

    moved = transition(
        DatasetVersion, pk=pk, to=to, moves=VERSION_MOVES, history=VersionTransition, link="version", reason=reason,
        user=user, fields={**times, **(fields or {})}, on_commit=tell,
    )  # fmt: skip
    version.state = VersionState(to)
    return moved


@transaction.atomic
def run_transition(
    *, run: PhaseRun, to: str, reason: str = "", user: User | None = None, fields: Fields | None = None
) -> bool:
    """Moves a run, then its launch after it, and tells the pages. Raises IllegalTransition."""
    pk, project_id, launch_id = run.pk, run.project_id, run.launch_id
    values: dict[str, Any] = {"finished_at": Now() if to in RUN_ENDS else None}
    if to == RunState.RUNNING:
        values["started_at"] = Coalesce("started_at", Now())
    if to not in {RunState.QUEUED, RunState.WAITING}:
        values["waiting_reason"] = ""

    def tell() -> None:
        publish(f"run.{pk}", "state", state=str(to), reason=reason)
        publish(f"overview.{project_id}", "state", run=pk, launch=launch_id, state=str(to), reason=reason)

    moved = transition(
        PhaseRun, pk=pk, to=to, moves=RUN_MOVES, history=RunTransition, link="run", reason=reason, user=user,
        fields={**values, **(fields or {})}, on_commit=tell,
    )  # fmt: skip
    run.state = RunState(to)
    if moved and launch_id is not None:
        launch_refresh(launch_id=launch_id)
    return moved


def attempt_transition(
    *, attempt: RunAttempt, to: str, reason: str = "", fields: Fields | None = None, fence: int | None = None
) -> bool:
    """Moves an attempt under its supervisor's fence. Its history is the run's. Raises StaleFence, IllegalTransition."""
    values: dict[str, Any] = {}
    if to not in LIVE_ATTEMPTS:
        values["finished_at"] = Now()
    moved = transition(
        RunAttempt, pk=attempt.pk, to=to, moves=ATTEMPT_MOVES, history=None, reason=reason,
        fields={**values, **(fields or {})}, fence=fence,
    )  # fmt: skip
    attempt.state = to
    return moved


def launch_transition(*, launch: Launch, to: str, reason: str = "", user: User | None = None) -> bool:
    """Moves a launch and tells the overview. Raises IllegalTransition."""
    pk, project_id = launch.pk, launch.pipeline.project_id
    ended = to in {LaunchState.SUCCEEDED, LaunchState.FAILED, LaunchState.STOPPED}

    def tell() -> None:
        publish(f"overview.{project_id}", "launch", launch=pk, state=str(to), reason=reason)

    moved = transition(
        Launch, pk=pk, to=to, moves=LAUNCH_MOVES, history=LaunchTransition, link="launch", reason=reason, user=user,
        fields={"finished_at": Now() if ended else None}, on_commit=tell,
    )  # fmt: skip
    launch.state = LaunchState(to)
    return moved


def evaluation_transition(
    *, evaluation: Evaluation, to: str, reason: str = "", user: User | None = None, fields: Fields | None = None
) -> bool:
    """Moves an evaluation and tells the overview; at its end the key of an endpoint is forgotten. Raises IllegalTransition."""
    pk, project_id = evaluation.pk, evaluation.project_id
    values: dict[str, Any] = {"finished_at": None} if to in MOVING_EVALUATIONS else {"finished_at": Now(), "endpoint_key": ""}
    if to != EvaluationState.QUEUED:
        values["waiting_reason"] = ""
    if to == EvaluationState.RUNNING:
        values["started_at"] = Coalesce("started_at", Now())

    def tell() -> None:
        publish(f"overview.{project_id}", "evaluation", evaluation=pk, state=str(to), reason=reason)

    moved = transition(
        Evaluation, pk=pk, to=to, moves=EVALUATION_MOVES, history=EvaluationTransition, link="evaluation", reason=reason,
        user=user, fields={**values, **(fields or {})}, on_commit=tell,
    )  # fmt: skip
    evaluation.state = EvaluationState(to)
    return moved


@transaction.atomic
def launch_refresh(*, launch_id: int) -> None:
    """Brings a launch in line with its runs; what people asked of it (paused, stopped) stays what they asked."""
    launch = Launch.objects.select_for_update(of=("self",)).select_related("pipeline").get(pk=launch_id)
    if launch.state != LaunchState.RUNNING:
        return
    rows = launch.runs.order_by("position", "id").only("pk", "name", "state", "state_reason", "launch_id", "retry_of_id")
    found = _observed(_that_count(rows))
    if found is not None:
        launch_transition(launch=launch, to=found[0], reason=found[1])


def _that_count(rows: Iterable[PhaseRun]) -> list[PhaseRun]:
    """The runs without those that another one stands in for."""
    runs = list(rows)
    replaced = {run.retry_of_id for run in runs}
    return [run for run in runs if run.pk not in replaced]


def _observed(runs: list[PhaseRun]) -> tuple[str, str] | None:
    """What a running launch has become, with the reason; None while it still runs."""
    if all(run.state == RunState.SUCCEEDED for run in runs):
        return LaunchState.SUCCEEDED, "Every phase succeeded."
    if any(run.state in LIVE_RUNS or run.state == RunState.QUEUED for run in runs):
        return None
    for state, to in (
        (RunState.FAILED, LaunchState.FAILED), (RunState.LOST, LaunchState.FAILED), (RunState.GATE_FAILED, LaunchState.HELD),
        (RunState.STOPPED, LaunchState.STOPPED), (RunState.PAUSED, LaunchState.PAUSED),
    ):  # fmt: skip
        one = next((run for run in runs if run.state == state), None)
        if one is not None:
            return to, f"{one.name}: {one.state_reason}".rstrip(": ")
    return None
