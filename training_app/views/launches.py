"""One launch of a pipeline, live: its graph, what each phase reached, and the buttons that steer it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Prefetch
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from model_core.errors import ModelCoreError
from r1platform.access import for_user, require_role, signed_in
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Role
from r1platform.templatetags.r1_parts import may_edit
from training_app import services
from training_app.budgets import uses_of
from training_app.gates import condition, gate_of
from training_app.models import Launch, PhaseRun
from training_app.reward_models import PHASE as REWARD_MODEL
from training_app.scheduling import final_checkpoint
from training_app.states import LIVE_LAUNCHES, LIVE_RUNS, LaunchState, RunState
from training_app.views.run_words import basis_words, forecast_words, gate_said, judged_of, used_words
from training_app.views.runs_new import reinforce_address
from training_app.views.standing import graph_nodes, launch_badge

_SENTENCES = {
    "pause": "Pausing: the phase that runs writes a checkpoint first.",
    "resume": "Going on from the last checkpoint.",
    "stop": "Stopping: the phase that runs writes a checkpoint first.",
}
RESUMABLE = frozenset({LaunchState.PAUSED, LaunchState.FAILED, LaunchState.STOPPED})


@require_safe
@login_required
def launch_detail(request: HttpRequest, launch_id: int) -> HttpResponse:
    """The launch's page; its parts stay fresh while it is looked at."""
    launch = launch_of(request, launch_id)
    runs = list(launch.runs.all())
    phases = list(launch.pipeline.phases.select_related("from_checkpoint"))
    replaced = {run.retry_of_id for run in runs}
    held = next((run for run in reversed(runs) if run.state == RunState.GATE_FAILED and run.pk not in replaced), None)
    held = held if launch.state == LaunchState.HELD else None
    context = {
        "launch": launch,
        "badge": launch_badge(launch, runs),
        "pipeline": launch.pipeline,
        "nodes": graph_nodes(phases, runs),
        "rows": [_row(run) for run in runs],
        "held": held,
        "back": services.roll_back_choices(held) if held is not None else [],
        "is_live": launch.state in LIVE_LAUNCHES,
        "may_pause": launch.state == LaunchState.RUNNING,
        "may_resume": launch.state in RESUMABLE,
        "may_edit": may_edit(request.user, launch.pipeline.project),
        "device_seconds": sum(run.device_seconds for run in runs),
        "num_tokens": sum(run.num_tokens for run in runs),
        "transitions": launch.transitions.select_related("user").order_by("-id"),
        "last_checkpoint": (last := _last_checkpoint(runs)),
        "reinforce": reinforce_address(last) if last is not None and last.run.phase == REWARD_MODEL else "",
    }
    return render(request, "training_app/launches/detail.html", context)


def _row(run: PhaseRun) -> dict[str, Any]:
    gate, judged, result = gate_of(run), judged_of(run), run.result or {}
    uses = [{"use": use, "words": used_words(use), "forecast": forecast_words(use) if run.state in LIVE_RUNS else ""}
            for use in uses_of(run)]  # fmt: skip
    return {
        "run": run,
        "gate": gate_said(run) if gate else "",
        "condition": condition(gate) if gate else "",
        "compared": judged.compared if judged else None,
        "basis": basis_words(judged) if judged else "",
        "result": result,
        "uses": uses,
        "ended_early": result.get("reason", "") if result.get("ended_by") == "gate" else "",
    }


def _last_checkpoint(runs: list[PhaseRun]) -> Any:
    """The checkpoint that counts as the result of the last phase that ended well."""
    for run in reversed(runs):
        if run.state == RunState.SUCCEEDED:
            return final_checkpoint(run)
    return None


def launch_of(request: HttpRequest, launch_id: int) -> Launch:
    """The launch, if the user may see it, with its runs in order."""
    launches = for_user(Launch.objects.all(), request.user, path="pipeline__project")
    runs = Prefetch("runs", PhaseRun.objects.order_by("position", "id").defer("notes"))
    return get_object_or_404(
        launches.select_related("pipeline__project", "created_by").prefetch_related(runs), pk=launch_id
    )


@require_POST
@login_required
def launch_act(request: HttpRequest, launch_id: int, verb: str) -> HttpResponse:
    """Pauses, resumes or stops the launch."""
    launch = launch_of(request, launch_id)
    if verb not in _SENTENCES:
        raise Http404(f"A launch cannot “{verb}”.")
    require_role(request.user, launch.pipeline.project, Role.EDITOR)
    act = {"pause": services.launch_pause, "resume": services.launch_resume, "stop": services.launch_stop}[verb]
    _try(request, lambda: act(launch=launch, user=signed_in(request)), _SENTENCES[verb], launch)
    return redirect("launch-detail", launch.pk)


@require_POST
@login_required
def gate_override(request: HttpRequest, launch_id: int, run_id: int) -> HttpResponse:
    """Lets a held launch go on although the gate did not pass; the reason is kept with who gave it."""
    launch = launch_of(request, launch_id)
    require_role(request.user, launch.pipeline.project, Role.EDITOR)
    run = get_object_or_404(launch.runs.all(), pk=run_id)
    reason = request.POST.get("reason", "").strip()
    if not reason:
        messages.error(request, "Say why the gate is overridden: the reason is kept in the history.")
        return redirect("launch-detail", launch.pk)
    sentence = f"The gate of {run.name} is overridden; the next phase starts."
    _try(request, lambda: services.gate_override(run=run, user=signed_in(request), reason=reason), sentence, launch)
    return redirect("launch-detail", launch.pk)


@require_POST
@login_required
def gate_roll_back(request: HttpRequest, launch_id: int, run_id: int) -> HttpResponse:
    """Lets a held launch go on with an earlier checkpoint; the reason is kept with who gave it."""
    launch = launch_of(request, launch_id)
    require_role(request.user, launch.pipeline.project, Role.EDITOR)
    run = get_object_or_404(launch.runs.all(), pk=run_id)
    given = request.POST.get("checkpoint", "")
    chosen = next((choice for choice in services.roll_back_choices(run) if str(choice.pk) == given), None)
    if chosen is None:
        messages.error(request, "Choose one of the checkpoints that are offered; that one is not among them, or no longer on disk.")
        return redirect("launch-detail", launch.pk)
    reason, sentence = request.POST.get("reason", ""), f"{run.name} is rolled back to step {chosen.step} of run {chosen.run_id}."
    act = services.gate_roll_back
    _try(request, lambda: act(run=run, user=signed_in(request), checkpoint=chosen, reason=reason), sentence, launch)
    return redirect("launch-detail", launch.pk)


def _try(request: HttpRequest, act: Callable[[], Any], sentence: str, launch: Launch) -> None:
    try:
        act()
    except services.NotHeld as error:
        messages.error(request, str(error))
    except IllegalTransition:
        launch.refresh_from_db()
        messages.error(request, f"That is not possible now: the launch is {launch.get_state_display().lower()}.")
    except ModelCoreError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, sentence)
