"""Changing a plan from its page: phases added, removed, moved, run alone; the pipeline copied; the plan as code."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from model_core.errors import ModelCoreError
from model_core.phases import PHASES
from r1platform.access import for_user, require_role, signed_in
from r1platform.form_words import WordedForm
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Role
from training_app import selectors, services
from training_app.models import Pipeline, PipelinePhase
from training_app.search_fields import SearchedField
from training_app.services.plans import LEAST_SHARE
from training_app.views.pipelines import pipeline_of

KEPT = "kept"
"""What the page sends of a phase that keeps the checkpoint which it goes on from."""


class PhaseChoice(forms.ModelChoiceField):  # type: ignore[type-arg]
    """Shows the phase's name."""

    def label_from_instance(self, obj: Any) -> str:
        return str(obj.name)


class PhaseAddForm(WordedForm):
    """Which phase, where, and what it builds on; its settings begin with the phase's own and are edited afterwards."""

    phase = forms.ChoiceField(choices=lambda: [(name, str(cls.title)) for name, cls in PHASES.items()], label="Phase")
    name = forms.SlugField(max_length=60, required=False, help_text="Empty: the name of its kind.")
    position = forms.TypedChoiceField(coerce=int, label="Place")
    starts_from = PhaseChoice(
        PipelinePhase.objects.none(), required=False, empty_label="A new model", label="Starts from",
        help_text="Whose checkpoint it trains on.",
    )  # fmt: skip
    rollouts_from = PhaseChoice(
        PipelinePhase.objects.none(), required=False, empty_label="None", label="Learns from",
        help_text="Whose answers it learns from: rejection sampling and distillation.",
    )  # fmt: skip
    from_checkpoint = SearchedField(
        "answering", required=False, empty_label="None", label="Or goes on from", help_text="A checkpoint of an earlier run.",
    )  # fmt: skip
    dataset_version = SearchedField("versions", required=False, empty_label="None", label="Dataset version")
    budget_fraction = forms.FloatField(
        required=False, min_value=0.001, max_value=1, label="Share of the budget", widget=forms.NumberInput(attrs={"step": "any"}),
        help_text="Empty: what the others leave, or an equal part when they give it.",
    )  # fmt: skip
    rebalance = forms.BooleanField(required=False, label="The other phases give what is missing")

    def __init__(self, *args: Any, pipeline: Pipeline, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        phases = list(pipeline.phases.order_by("position"))
        place, version, start = (self.fields[name] for name in ("position", "dataset_version", "from_checkpoint"))
        assert isinstance(place, forms.TypedChoiceField) and isinstance(version, SearchedField) and isinstance(start, SearchedField)
        start.offer(pipeline.project)
        place.choices = [(number, f"before {one.name}") for number, one in enumerate(phases)] + [(len(phases), "last")]
        self.initial.setdefault("position", len(phases))
        version.offer(pipeline.project)
        used = [one.dataset_version_id for one in phases if one.dataset_version_id]
        self.initial.setdefault("dataset_version", used[0] if used else None)
        given = [f"{one.name} {one.budget_fraction:.4g}" for one in phases]
        self.fields["rebalance"].help_text = f"Each in proportion to its share: {', '.join(given)}."
        self.initial.setdefault("rebalance", sum(one.budget_fraction for one in phases) > 1 - LEAST_SHARE)
        for key in ("starts_from", "rollouts_from"):
            field = self.fields[key]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = pipeline.phases.order_by("position")

    def values(self) -> dict[str, Any]:
        """What was chosen, as `phase_add` takes it."""
        given = {key: value for key, value in self.cleaned_data.items() if value not in (None, "")}
        return {key: value.name if isinstance(value, PipelinePhase) else value for key, value in given.items()}


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def phase_new(request: HttpRequest, pipeline_id: int) -> HttpResponse:
    """A phase more; then its settings are shown."""
    pipeline = pipeline_of(request, pipeline_id)
    require_role(request.user, pipeline.project, Role.EDITOR)
    form = PhaseAddForm(request.POST or None, pipeline=pipeline)
    if request.method == "POST" and form.is_valid():
        try:
            made = services.phase_add(pipeline=pipeline, user=signed_in(request), **form.values())
        except ModelCoreError as error:
            form.add_error(error.field if error.field in form.fields else None, error.message)
        except IllegalTransition as error:
            form.add_error(None, str(error))
        else:
            shares = ", ".join(f"{one.name} {one.budget_fraction:.4g}" for one in pipeline.phases.order_by("position"))
            messages.success(request, f"{made.name} is added. The budget is shared so: {shares}. Look its settings over.")
            return redirect("phase-edit", pipeline.pk, made.pk)
    kinds = [(cls.title, cls.describe) for _name, cls in PHASES.items()]
    context = {"form": form, "pipeline": pipeline, "project": pipeline.project, "kinds": kinds}
    return render(request, "training_app/pipelines/phase_new.html", context, status=422 if form.is_bound else 200)


@require_POST
@login_required
def phase_act(request: HttpRequest, pipeline_id: int, phase_id: int, verb: str) -> HttpResponse:
    """Moves a phase earlier or later, takes it out, runs it alone, or changes what it builds on."""
    phases = for_user(PipelinePhase.objects.select_related("pipeline__project"), request.user, path="pipeline__project")
    phase = get_object_or_404(phases, pk=phase_id, pipeline_id=pipeline_id)
    require_role(request.user, phase.pipeline.project, Role.EDITOR)
    user, name = signed_in(request), phase.name
    to = redirect("pipeline-detail", pipeline_id)
    acts: dict[str, tuple[Callable[[], Any], str]] = {
        "earlier": (lambda: _move(phase, user, -1), f"{name} stands earlier now."),
        "later": (lambda: _move(phase, user, 1), f"{name} stands later now."),
        "remove": (lambda: services.phase_remove(phase=phase, user=user), f"{name} is taken out of the plan."),
        "run": (lambda: services.phase_run(phase=phase, user=user), f"{name} is queued alone, on the newest results before it."),
        "source": (lambda: services.phase_source_set(phase=phase, user=user, **_sources(request, phase)), f"{name} is saved."),
    }
    if verb not in acts:
        raise Http404(f"A phase cannot “{verb}”.")
    act, sentence = acts[verb]
    try:
        made = act()
    except (IllegalTransition, ModelCoreError) as error:
        messages.error(request, str(error))
        return to
    messages.success(request, sentence)
    return redirect("run-detail", made.pk) if verb == "run" else to


def _move(phase: PipelinePhase, user: User, by: int) -> None:
    services.phase_move(phase=phase, user=user, position=phase.position + by)


def _sources(request: HttpRequest, phase: PipelinePhase) -> dict[str, PipelinePhase | None]:
    """What it is to start from and learn from; another pipeline's phase is none."""
    found = {str(one.pk): one for one in phase.pipeline.phases.all()}
    given = {key: request.POST[key] for key in ("starts_from", "rollouts_from") if key in request.POST}
    return {key: found.get(value) for key, value in given.items() if value != KEPT}


@require_POST
@login_required
def pipeline_clone(request: HttpRequest, pipeline_id: int) -> HttpResponse:
    """Another pipeline like this one, to be changed."""
    pipeline = pipeline_of(request, pipeline_id)
    require_role(request.user, pipeline.project, Role.EDITOR)
    try:
        made = services.pipeline_clone(pipeline=pipeline, user=signed_in(request), name=request.POST.get("name", "")[:120])
    except ModelCoreError as error:
        messages.error(request, error.message)
        return redirect("pipeline-detail", pipeline.pk)
    messages.success(request, f"“{made.name}” is made. Change what you like, then launch it.")
    return redirect("pipeline-detail", made.pk)


@require_safe
@login_required
def pipeline_code(request: HttpRequest, pipeline_id: int) -> HttpResponse:
    """The plan as JSON, as requests of the API, and as commands of the library."""
    pipeline = pipeline_of(request, pipeline_id)
    spec = services.pipeline_spec(pipeline)
    context = {
        "pipeline": pipeline, "project": pipeline.project, "json": json.dumps(spec, indent=2, ensure_ascii=False),
        "curl": _curl(request, pipeline, spec), "commands": selectors.pipeline_commands(pipeline),
    }  # fmt: skip
    return render(request, "training_app/pipelines/code.html", context)


def _curl(request: HttpRequest, pipeline: Pipeline, spec: dict[str, Any]) -> str:
    """Makes and launches the same pipeline under another name; the key comes from the environment."""
    named = {"project": pipeline.project.slug, **spec, "name": f"{pipeline.name} again"[:120]}
    body = json.dumps(named, indent=1, ensure_ascii=False)
    api = request.build_absolute_uri(reverse("pipeline-list")).replace("/pipelines/", "/api/v1/pipelines/")
    return (
        f"cat > pipeline.json <<'R1_PIPELINE'\n{body}\nR1_PIPELINE\n"
        'curl --fail-with-body -H "Authorization: Bearer $R1_KEY" -H "Content-Type: application/json" \\\n'
        f"  -d @pipeline.json {api}\n"
        f'curl --fail-with-body -X POST -H "Authorization: Bearer $R1_KEY" {api}PIPELINE_ID/launch/\n'
    )
