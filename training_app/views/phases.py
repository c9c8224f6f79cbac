"""Editing one phase of a pipeline: its data, budget and gate, and every setting of its configuration."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from model_core.errors import ModelCoreError
from model_core.phases import PHASES
from r1platform.access import for_user, require_role, signed_in
from r1platform.models import Role
from r1platform.templatetags.r1_parts import may_edit
from training_app import services
from training_app.forms import PhaseConfigForm, PhaseForm
from training_app.models import PipelinePhase
from training_app.reward_models import PHASE as REWARD_MODEL
from training_app.views.runs_new import rates_answer

OPEN = ("", "phase_config", "held_out", "reward")
"""Groups that are shown unfolded: what people change."""


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def phase_edit(request: HttpRequest, pipeline_id: int, phase_id: int) -> HttpResponse:
    """The form; viewers can read it. A launch that exists keeps the settings that it was launched with."""
    phases = for_user(PipelinePhase.objects.all(), request.user, path="pipeline__project")
    phase = get_object_or_404(
        phases.select_related("pipeline__project", "starts_from", "from_checkpoint__run"), pk=phase_id, pipeline_id=pipeline_id
    )
    if request.method == "POST":
        require_role(request.user, phase.pipeline.project, Role.EDITOR)
    data = request.POST if request.method == "POST" else None
    about = PhaseForm(data, phase=phase, prefix="phase")
    num_processes = about.cleaned_data.get("num_processes") if about.is_valid() else None
    config = PhaseConfigForm(data, phase=phase, num_processes=num_processes)
    if data is not None and all([about.is_valid(), config.is_valid()]) and _save(request, phase, about, config):
        messages.success(request, f"{phase.name} is saved. The next launch uses it.")
        return redirect("pipeline-detail", pipeline_id)
    kind = PHASES.get(phase.phase)
    earlier = list(phase.pipeline.phases.filter(position__lt=phase.position).order_by("position"))
    context = {
        "earlier": [one for one in earlier if one.phase != REWARD_MODEL],
        "judges": [one for one in earlier if one.phase == REWARD_MODEL],
        "phase": phase,
        "pipeline": phase.pipeline,
        "about": about,
        "config": config,
        "kind_title": kind.title,
        "kind_words": getattr(kind, "describe", "") if isinstance(getattr(kind, "describe", ""), str) else "",
        "rates_url": reverse("phase-rates", args=[pipeline_id, phase_id]),
        "open": {*OPEN, *config.open_groups()},
        "may_edit": may_edit(request.user, phase.pipeline.project),
    }
    return render(request, "training_app/pipelines/phase.html", context, status=200 if data is None else 422)


@require_POST
@login_required
def phase_rates(request: HttpRequest, pipeline_id: int, phase_id: int) -> HttpResponse:
    """Learning rates by layer of the settings that the form holds now."""
    phases = for_user(PipelinePhase.objects.all(), request.user, path="pipeline__project")
    phase = get_object_or_404(phases.select_related("starts_from"), pk=phase_id, pipeline_id=pipeline_id)
    form = PhaseConfigForm(request.POST, phase=phase)
    if form.fields.keys().isdisjoint(request.POST):  # whoever may only look sends no field
        return rates_answer({**phase.config, "phase": phase.phase}, phase.starts_from)
    return rates_answer(form.config() if form.is_valid() else None, phase.starts_from)


def _save(request: HttpRequest, phase: PipelinePhase, about: PhaseForm, config: PhaseConfigForm) -> bool:
    values = about.cleaned_data
    try:
        services.pipeline_phase_update(phase=phase, user=signed_in(request), config=config.config(), **values)
    except ModelCoreError as error:
        if error.field in about.fields:
            about.add_error(error.field, error.message)
        else:
            config.place(error)
        return False
    return True
