"""Where a pipeline stands: its phases as nodes of a graph, with the runs of one launch on them.

Pure reading of prefetched rows; pages of pipelines, launches and the overview share it.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Count, OuterRef, Prefetch, QuerySet, Subquery

from r1platform.access import for_user
from r1platform.models import Project
from training_app.gates import condition, gate_of
from training_app.models import Launch, PhaseRun, Pipeline, PipelinePhase
from training_app.reward_models import reward_phase
from training_app.selectors import launch_state
from training_app.states import LIVE_LAUNCHES, GateVerdict, LaunchState, RunState
from training_app.views.run_words import basis_words, gate_said, judged_of, measured, progress_fraction, progress_words

Reader = User | AnonymousUser
VERDICT_TONES = {
    GateVerdict.PASSED: "succeeded",
    GateVerdict.HELD: "waiting",
    GateVerdict.OVERRIDDEN: "waiting",
    GateVerdict.ROLLED_BACK: "waiting",
    GateVerdict.PENDING: "queued",
}


def pipelines_of(*, user: Reader, project: Project) -> QuerySet[Pipeline]:
    """The project's pipelines, newest first, with phases, the newest launch and its runs, and `num_launches`."""
    runs = PhaseRun.objects.order_by("position", "id").defer("config", "notes")
    newest = Launch.objects.filter(pipeline=OuterRef("pipeline")).order_by("-number").values("pk")[:1]
    launches = Launch.objects.filter(pk=Subquery(newest)).prefetch_related(Prefetch("runs", runs))
    rows = for_user(Pipeline.objects.filter(project=project), user).annotate(num_launches=Count("launches"))
    phases = Prefetch("phases", PipelinePhase.objects.select_related("from_checkpoint"))
    return rows.prefetch_related(phases, Prefetch("launches", launches, to_attr="newest")).order_by("-id")


def pipeline_row(pipeline: Pipeline) -> dict[str, Any]:
    """One pipeline of `pipelines_of` with its newest launch and the nodes of its graph."""
    newest: list[Launch] = pipeline.newest  # type: ignore[attr-defined]
    launch = newest[0] if newest else None
    phases = list(pipeline.phases.all())
    runs = list(launch.runs.all()) if launch else []
    return {
        "pipeline": pipeline,
        "launch": launch,
        "badge": launch_badge(launch, runs) if launch else None,
        "nodes": graph_nodes(phases, runs),
        "num_launches": pipeline.num_launches,  # type: ignore[attr-defined]
        "is_live": launch is not None and launch.state in LIVE_LAUNCHES,
    }


def launch_badge(launch: Launch, runs: list[PhaseRun]) -> dict[str, str]:
    """State and word of a launch; one of which nothing has started waits, and `waits` says for what. One whose phase still
    writes its checkpoint is pausing."""
    before = {RunState.QUEUED, RunState.WAITING}
    if launch.state != LaunchState.RUNNING or any(run.started_at or run.state not in before for run in runs):
        state, label = launch_state(launch, runs)
        return {"state": state, "label": label, "waits": ""}
    first = next((run for run in runs if run.state == RunState.QUEUED), None)
    reason = (first.waiting_reason if first else "") or "Its first phase is in the queue."
    return {"state": "waiting", "label": "Waiting", "waits": reason}


def graph_nodes(phases: list[PipelinePhase], runs: list[PhaseRun]) -> list[dict[str, Any]]:
    """One node a phase, in order; the newest run of a phase counts.

    `sources` are the phases whose checkpoint it takes.
    """
    by_phase = {run.pipeline_phase_id: run for run in runs}
    depths: dict[int, int] = {}
    named = {phase.name: phase.pk for phase in phases}
    nodes = []
    for phase in phases:
        sources = {pk for pk in (phase.starts_from_id, phase.rollouts_from_id, named.get(reward_phase(phase.config))) if pk}
        depths[phase.pk] = 1 + max((depths.get(pk, 0) for pk in sources), default=0)
        nodes.append(_node(phase, by_phase.get(phase.pk), depths[phase.pk], sorted(sources)))
    return nodes


def _node(phase: PipelinePhase, run: PhaseRun | None, depth: int, sources: list[int]) -> dict[str, Any]:
    return {
        "phase": phase,
        "run": run,
        "depth": depth,
        "sources": " ".join(str(pk) for pk in sources),
        "state": str(run.state) if run else "none",
        "label": run.get_state_display() if run else "Not run yet",
        "words": progress_words(run) if run else "",
        "fraction": progress_fraction(run) if run else None,
        "gate": gate(phase, run),
        "found": measured(run) if run else {},
    }


def gate(phase: PipelinePhase, run: PhaseRun | None) -> dict[str, Any] | None:
    """The gate in words: condition, what was measured and on what it rests, verdict. None when the phase has none."""
    found = gate_of(run or phase)
    if found is None:
        return None
    judged = judged_of(run) if run else None
    verdict = run.gate_verdict if run else GateVerdict.PENDING
    return {
        "condition": condition(found),
        "threshold": found.threshold,
        "value": judged.compared if judged else None,
        "basis": basis_words(judged) if judged else "",
        "stop_early": phase.stop_early,
        "verdict": gate_said(run) if run else "",
        "tone": VERDICT_TONES.get(GateVerdict(verdict), "queued"),
        "action": phase.get_gate_action_display(),
    }
