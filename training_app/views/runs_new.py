"""A single run outside a pipeline: choose phase, data and what it starts from, edit the configuration, queue it.

With `?clone=ID` the form holds that run's values. Nothing is created until the configuration is valid.
"""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from model_core.config import RunConfig
from model_core.errors import ConfigError, ModelCoreError
from model_core.phases import PHASES
from r1platform.access import current_project, for_user, require_role
from r1platform.models import Project, Role
from training_app import services
from training_app.models import Checkpoint, DatasetVersion, PhaseRun
from training_app.states import VersionState


class ReadableJSONField(forms.JSONField):
    """JSON with one setting a line."""

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


class RunForm(forms.Form):
    """The configuration is JSON with every default written out; its sentences of error name the setting."""

    name = forms.CharField(max_length=120, help_text="How you will find it again.")
    phase = forms.ChoiceField(help_text="What kind of training it is.")
    dataset_version = forms.ModelChoiceField(
        queryset=DatasetVersion.objects.none(), required=False, empty_label="None", label="Dataset version"
    )
    starts_from = forms.ModelChoiceField(
        queryset=Checkpoint.objects.none(), required=False, empty_label="A new model", label="Starts from"
    )
    config = ReadableJSONField(
        label="Configuration",
        widget=forms.Textarea(attrs={"rows": 24, "spellcheck": "false", "class": "mono"}),
        help_text="Complete and resolved. A setting that is left out takes its default; an unknown one is refused.",
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        phase, version, start = (self.fields[name] for name in ("phase", "dataset_version", "starts_from"))
        assert isinstance(phase, forms.ChoiceField)
        assert isinstance(version, forms.ModelChoiceField) and isinstance(start, forms.ModelChoiceField)
        phase.choices = [(name, str(cls.title)) for name, cls in PHASES.items()]
        versions = DatasetVersion.objects.filter(dataset__project=project, state=VersionState.READY)
        version.queryset = versions.select_related("dataset")
        start.queryset = Checkpoint.objects.filter(run__project=project, removed_at=None).select_related("run")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        config, phase = cleaned.get("config"), cleaned.get("phase")
        if not isinstance(config, dict):
            if "config" in cleaned:
                self.add_error("config", "The configuration is an object: it begins with “{”.")
            return cleaned
        try:
            cleaned["config"] = RunConfig.parse({**config, "phase": phase}).resolved()
        except ModelCoreError as error:
            self.add_error("config", error.message)
        return cleaned


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def run_new(request: HttpRequest) -> HttpResponse:
    """The form; a POST queues the run and goes to its page."""
    project = current_project(request)
    require_role(request.user, project, Role.EDITOR)
    source = _source(request)
    form = RunForm(request.POST or None, project=project, initial=_initial(request, source))
    if request.method == "POST" and form.is_valid() and (run := _create(request, form, project)):
        messages.success(request, f"Run {run.pk} is queued. It starts as soon as a device is free.")
        return redirect("run-detail", run_id=run.pk)
    status = 422 if form.is_bound else 200
    return render(
        request, "training_app/run/new.html", {"form": form, "source": source, "project": project}, status=status
    )


def _create(request: HttpRequest, form: RunForm, project: Project) -> PhaseRun | None:
    values = form.cleaned_data
    try:
        return services.run_create(
            project=project,
            user=request.user,
            name=values["name"],
            phase=values["phase"],
            config=values["config"],
            dataset_version=values["dataset_version"],
            starts_from=values["starts_from"],
        )
    except ModelCoreError as error:
        field = error.field if error.field in form.fields else ("config" if isinstance(error, ConfigError) else None)
        form.add_error(field, error.message)
    return None


def _source(request: HttpRequest) -> PhaseRun | None:
    clone = request.GET.get("clone", "")
    if not clone.isdecimal() or len(clone) > 17:
        return None
    return get_object_or_404(for_user(PhaseRun.objects.all(), request.user), pk=int(clone))


def _initial(request: HttpRequest, source: PhaseRun | None) -> dict[str, Any]:
    if source is not None:
        return {
            "name": f"{source.name} again",
            "phase": source.phase,
            "dataset_version": source.dataset_version_id,
            "starts_from": source.starts_from_id,
            "config": source.config,
        }
    names = PHASES.names()
    phase = request.GET.get("phase", "")
    phase = phase if phase in names else names[0]
    return {
        "phase": phase,
        "config": RunConfig.parse({"phase": phase}).resolved(),
        "starts_from": request.GET.get("starts_from"),
        "dataset_version": request.GET.get("dataset_version"),
    }
