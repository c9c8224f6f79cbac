"""What the buttons of a run do. Each is a POST that leads back to the page with a sentence of what happens."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from model_core.errors import ModelCoreError
from r1platform.access import require_role, signed_in
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Role
from training_app import services
from training_app.models import PhaseRun
from training_app.views.runs_page import run_of


@require_POST
def run_act(request: HttpRequest, run_id: int, verb: str) -> HttpResponse:
    """Stops, pauses, resumes, retries, clones, overrides the gate, rolls back, or keeps tags and notes."""
    run = run_of(request, run_id)
    if verb not in _VERBS:
        raise Http404(f"A run cannot “{verb}”.")
    require_role(request.user, run.project, Role.EDITOR)
    try:
        return _VERBS[verb](request, run)
    except services.NotHeld as error:
        messages.error(request, str(error))
    except IllegalTransition:
        run.refresh_from_db()
        messages.error(
            request,
            f"That is not possible now: the run is “{run.get_state_display()}”. The page shows its newest state.",
        )
    except ModelCoreError as error:
        messages.error(request, error.message)
    return redirect("run-detail", run_id=run.pk)


def _stop(request: HttpRequest, run: PhaseRun) -> HttpResponse:
    services.run_stop(run=run, user=signed_in(request), reason=request.POST.get("reason", ""))
    return _said(request, run, "Asked to stop: the run writes a checkpoint at the next step and ends.")


def _pause(request: HttpRequest, run: PhaseRun) -> HttpResponse:
    services.run_pause(run=run, user=signed_in(request), reason=request.POST.get("reason", ""))
    return _said(request, run, "Asked to pause: the run writes a checkpoint at the next step and frees its device.")


def _resume(request: HttpRequest, run: PhaseRun) -> HttpResponse:
    services.run_resume(run=run, user=signed_in(request), reason=request.POST.get("reason", ""))
    return _said(request, run, "Queued: it goes on from its last checkpoint as soon as a device is free.")


def _retry(request: HttpRequest, run: PhaseRun) -> HttpResponse:
    services.run_retry(run=run, user=signed_in(request), reason=request.POST.get("reason", ""))
    return _said(
        request,
        run,
        "Queued: a new attempt starts from the last complete checkpoint, or from the beginning if there is none.",
    )


def _clone(request: HttpRequest, run: PhaseRun) -> HttpResponse:
    clone = services.run_clone(run=run, user=signed_in(request))
    return _said(request, clone, f"Queued as run {clone.pk}, with the configuration of run {run.pk}.")


def _override(request: HttpRequest, run: PhaseRun) -> HttpResponse:
    reason = request.POST.get("reason", "").strip()
    if not reason:
        messages.error(request, "Say why the gate is overridden: the reason is kept in the history of the run.")
        return redirect("run-detail", run_id=run.pk)
    services.gate_override(run=run, user=signed_in(request), reason=reason)
    return _said(request, run, "The gate is overridden; the pipeline goes on. Your name and reason are in the history.")


def _roll_back(request: HttpRequest, run: PhaseRun) -> HttpResponse:
    given = request.POST.get("checkpoint", "")
    chosen = next((choice for choice in services.roll_back_choices(run) if str(choice.pk) == given), None)
    if chosen is None:
        messages.error(request, "Choose one of the checkpoints that are offered; that one is not among them, or no longer on disk.")
        return redirect("run-detail", run_id=run.pk)
    services.gate_roll_back(run=run, user=signed_in(request), checkpoint=chosen, reason=request.POST.get("reason", ""))
    said = f"Rolled back to step {chosen.step} of run {chosen.run_id}. Your name and reason are in the history."
    return _said(request, run, said)


def _describe(request: HttpRequest, run: PhaseRun) -> HttpResponse:
    tags = [tag.strip() for tag in request.POST.get("tags", "").split(",") if tag.strip()]
    services.run_tags_set(run=run, user=signed_in(request), tags=tags)
    services.run_notes_set(run=run, user=signed_in(request), notes=request.POST.get("notes", ""))
    return _said(request, run, "Tags and notes are kept.")


def _said(request: HttpRequest, run: PhaseRun, sentence: str) -> HttpResponse:
    messages.success(request, sentence)
    return redirect("run-detail", run_id=run.pk)


_VERBS: dict[str, Callable[[HttpRequest, PhaseRun], HttpResponse]] = {
    "stop": _stop,
    "pause": _pause,
    "resume": _resume,
    "retry": _retry,
    "clone": _clone,
    "override": _override,
    "roll-back": _roll_back,
    "describe": _describe,
}
