"""Readings of pipelines, their templates and launches, and what was spent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Prefetch, QuerySet, Sum
from django.utils import timezone

from r1platform.access import for_user
from r1platform.models import Project
from training_app.models import Launch, PhaseRun, Pipeline
from training_app.pipeline_templates import PIPELINE_TEMPLATES
from training_app.reward_models import reward_phase
from training_app.states import LIVE_RUNS, LaunchState

Reader = User | AnonymousUser
PAUSING = ("pausing", "Pausing")


def pipeline_templates() -> list[dict[str, Any]]:
    """Every template with its phases in order and the data it was made for."""
    return [pipeline_template(name) for name in PIPELINE_TEMPLATES.names()]


def pipeline_template(name: str) -> dict[str, Any]:
    """One template. Raises UnknownName."""
    made = PIPELINE_TEMPLATES.get(name)()
    phases = [
        {"name": r.name, "phase": r.phase, "summary": r.summary, "budget_fraction": r.budget_fraction,
         "gate_metric": r.gate_metric if r.gate_threshold is not None else "", "gate_threshold": r.gate_threshold,
         "starts_from": r.starts_from, "rollouts_from": r.rollouts_from, "goes_on": r.goes_on, "config": r.config}
        for r in made.phases(seed=0)
    ]  # fmt: skip
    return {
        "name": name, "title": made.title, "description": made.description, "phases": phases,
        "budget_device_seconds": made.budget_device_seconds, "prepare": made.prepare(), "learns_from": made.learns_from,
        "goes_on": any(phase["goes_on"] for phase in phases),
    }  # fmt: skip


def launch_state(launch: Launch, runs: Iterable[PhaseRun]) -> tuple[str, str]:
    """What a launch is, and the word for it. A pause is kept from the moment that it was asked for, so that no phase starts
    any more; until the phase that runs has written its checkpoint the launch is pausing."""
    if launch.state == LaunchState.PAUSED and any(run.state in LIVE_RUNS for run in runs):
        return PAUSING
    return launch.state, launch.get_state_display()


def launch_list(*, user: Reader, project: Project | None = None) -> QuerySet[Launch]:
    """Launches that the user may see, newest first, with their runs in order."""
    runs = Prefetch("runs", PhaseRun.objects.select_related("retried_as").order_by("position", "id"))
    found = for_user(Launch.objects.all(), user, path="pipeline__project").select_related("pipeline__project")
    found = found.prefetch_related(runs).order_by("-id")
    return found if project is None else found.filter(pipeline__project=project)


def pipeline_graph(pipeline: Pipeline, launch: Launch | None = None) -> dict[str, Any]:
    """Nodes (a phase each, with its run of the launch) and edges (whose checkpoint it takes, and what for)."""
    launch = launch or pipeline.launches.order_by("-number").first()
    runs = {} if launch is None else {run.pipeline_phase_id: run for run in launch.runs.order_by("pk")}
    phases = list(pipeline.phases.order_by("position"))
    nodes = [_node(phase, runs.get(phase.pk)) for phase in phases]
    named = {phase.name: phase.pk for phase in phases}
    edges = [
        {"from": source, "to": phase.pk, "kind": kind}
        for phase in phases
        for kind, source in (
            ("starts_from", phase.starts_from_id), ("rollouts_from", phase.rollouts_from_id),
            ("reward_model", named.get(reward_phase(phase.config))),
        )
        if source is not None
    ]  # fmt: skip
    return {"pipeline": pipeline.pk, "launch": launch.pk if launch else None, "nodes": nodes, "edges": edges}


def _node(phase: Any, run: PhaseRun | None) -> dict[str, Any]:
    return {
        "id": phase.pk, "name": phase.name, "phase": phase.phase, "from_checkpoint": phase.from_checkpoint_id,
        "budget_fraction": phase.budget_fraction, "gate_metric": phase.gate_metric,
        "gate_threshold": phase.gate_threshold, "gate_direction": phase.gate_direction,
        "run": None if run is None else {
            "id": run.pk, "state": run.state, "state_reason": run.state_reason, "gate_verdict": run.gate_verdict,
            "gate_measured": run.gate_measured, "retry_of": run.retry_of_id,
            "progress": run.progress, "device_seconds": run.device_seconds,
        },
    }  # fmt: skip


def spend_today(*, project: Project, user: Reader) -> dict[str, Any]:
    """Device-seconds and tokens of the runs that started since midnight UTC."""
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    runs = for_user(PhaseRun.objects.filter(project=project, started_at__gte=midnight), user)
    sums = runs.aggregate(device_seconds=Sum("device_seconds"), tokens=Sum("num_tokens"))
    return {"device_seconds": sums["device_seconds"] or 0.0, "tokens": sums["tokens"] or 0}
