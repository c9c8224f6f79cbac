"""A single run outside a pipeline: choose phase, data and what it starts from, set its configuration, queue it.

The phase is in the address; with `?clone=ID` the forms hold that run's values, with `?reward_model=ID` the whole reward is the
preference of that reward model. Nothing is created until the whole configuration is valid.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from model_core.config import RunConfig
from model_core.errors import ModelCoreError
from model_core.phases import PHASES
from model_core.planner import shape_of
from model_core.rewards import REWARDS
from r1platform.access import current_project, for_user, require_role, signed_in
from r1platform.form_words import WordedForm
from r1platform.models import Project, Role
from r1platform.problems import answer
from training_app import selectors, services
from training_app.forms import RewardedForm, run_presets
from training_app.models import Checkpoint, PhaseRun, PipelinePhase
from training_app.reward_models import REWARD, reward_models
from training_app.search_fields import SearchedField, ready_versions


class RunForm(WordedForm):
    """What the run is called, what it learns from and where it starts."""

    name = forms.CharField(max_length=120, help_text="How you will find it again.")
    dataset_version = SearchedField("versions", required=False, empty_label="None", label="Dataset version")
    starts_from = SearchedField("checkpoints", required=False, empty_label="A new model", label="Starts from")

    def __init__(self, *args: Any, project: Project, phase: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        version, start = self.fields["dataset_version"], self.fields["starts_from"]
        assert isinstance(version, SearchedField) and isinstance(start, SearchedField)
        version.offer(project)
        start.offer(project)
        if PHASES.get(phase).needs["dataset"]:
            version.required, version.empty_label = True, "Choose a version…"
            version.error_messages["required"] = "This phase learns from a dataset version; choose one."
            self.initial["dataset_version"] = self.initial.get("dataset_version") or ready_versions(project).first()


class RunConfigForm(RewardedForm):
    """The settings of a run of `phase`, those of the phase among them."""

    def __init__(self, *args: Any, project: Project, phase: str, values: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(
            *args,
            model=RunConfig,
            values={**values, "phase": phase},
            nested={"phase_config": PHASES.get(phase).Config},
            keys={"reward.weights": REWARDS.names()},
            without=frozenset({"phase"}),
            presets=run_presets(),
            prefix="config",
            **kwargs,
        )
        for group in self.found_groups:
            if group.path == "phase_config":
                group.title, group.help = str(PHASES.get(phase).title), ""
        self.offer_reward_models(project)


@require_http_methods(["GET", "HEAD", "POST"])
def run_new(request: HttpRequest) -> HttpResponse:
    """The forms; a POST queues the run and goes to its page."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    require_role(request.user, project, Role.EDITOR)
    source = _source(request)
    phase = _phase(request, source)
    form = RunForm(request.POST or None, project=project, phase=phase, initial=_initial(request, source, phase))
    values = _with_weights(request, source.config) if source is not None and source.phase == phase else _rewarded(request, project)
    config = RunConfigForm(request.POST or None, project=project, phase=phase, values=values)
    if request.method == "POST" and (run := _create(request, project, phase, form, config)) is not None:
        messages.success(request, f"Run {run.pk} is queued. It starts as soon as a device is free.")
        return redirect("run-detail", run_id=run.pk)
    phases = [(name, str(cls.title), str(cls.describe)) for name, cls in PHASES.items()]
    context = {
        "form": form, "config": config, "source": source, "project": project, "phase": phase, "phases": phases,
        "rates_url": f"{reverse('run-rates')}?phase={phase}",
    }  # fmt: skip
    return render(request, "training_app/run/new.html", context, status=422 if form.is_bound else 200)


@require_POST
def run_rates(request: HttpRequest) -> HttpResponseBase:
    """Learning rates by layer of the settings that the form holds now."""
    project = current_project(request)
    if project is None:
        return answer(request, 404, "You have no project.")
    phase = _phase(request, None)
    form = RunForm(request.POST, project=project, phase=phase)
    config = RunConfigForm(request.POST, project=project, phase=phase, values={})
    form.is_valid()
    start = form.cleaned_data.get("starts_from")
    return rates_answer(config.config() if config.is_valid() else None, start.run if start else None)


def rates_answer(config: dict[str, Any] | None, start: PhaseRun | PipelinePhase | None) -> JsonResponse:
    """The plot of a form's settings, with the shape of what it starts from; only a sentence, `detail`, where there is none."""
    if config is None:
        return JsonResponse({"detail": "A setting is not as it can be. The plot follows when it is mended."})
    try:
        asked = RunConfig.parse(config)
        match start:
            case None:
                shape = shape_of(asked)
            case PhaseRun():
                shape = selectors.run_shape(start)
            case _:
                shape = selectors.phase_shape(start)
    except ModelCoreError as error:
        return JsonResponse({"detail": error.message})
    found = selectors.rate_plot(asked, shape)
    return JsonResponse(found or {"detail": "This phase trains nothing."})


def _create(
    request: HttpRequest, project: Project, phase: str, form: RunForm, config: RunConfigForm
) -> PhaseRun | None:
    first, second = form.is_valid(), config.is_valid()
    if not (first and second):
        return None
    values = form.cleaned_data
    try:
        return services.run_create(
            project=project,
            user=signed_in(request),
            name=values["name"],
            phase=phase,
            config=config.config(),
            dataset_version=values["dataset_version"],
            starts_from=values["starts_from"],
        )
    except ModelCoreError as error:
        if error.field in form.fields:
            form.add_error(error.field, error.message)
        else:
            config.place(error)
    return None


def _source(request: HttpRequest) -> PhaseRun | None:
    clone = request.GET.get("clone", "")
    if not clone.isdecimal() or len(clone) > 17:
        return None
    return get_object_or_404(for_user(PhaseRun.objects.all(), request.user), pk=int(clone))


def _with_weights(request: HttpRequest, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the reward's weights of the address, for those components that it has."""
    given = dict(part.rpartition(":")[::2] for part in request.GET.get("weights", "").split(",") if ":" in part)
    own = config.get("reward", {}).get("weights", {})
    changed = {name: float(given[name]) for name in own if re.fullmatch(r"-?\d{1,6}(\.\d{1,6})?", given.get(name, ""))}
    return {**config, "reward": {**config["reward"], "weights": {**own, **changed}}} if changed else config


def reinforce_address(checkpoint: Checkpoint) -> str:
    """The form of a reinforcement by this reward model, of the model that it was made from, on the prompts that it learnt from."""
    before = checkpoint.run
    given = {"phase": "reinforcement", "reward_model": checkpoint.pk, "starts_from": before.starts_from_id,
             "dataset_version": before.dataset_version_id}  # fmt: skip
    return f"{reverse('run-new')}?{urlencode({name: value for name, value in given.items() if value is not None})}"


def _rewarded(request: HttpRequest, project: Project) -> dict[str, Any]:
    """A configuration whose whole reward is the preference of the reward model that the address names."""
    named = request.GET.get("reward_model", "")
    _choices, chosen = reward_models(project, named=named) if named else ([], "")
    return {"reward": {"weights": {REWARD: 1.0}, "settings": {REWARD: {"checkpoint": chosen}}}} if chosen else {}


def _phase(request: HttpRequest, source: PhaseRun | None) -> str:
    names = PHASES.names()
    wanted = request.GET.get("phase") or (source.phase if source is not None else "")
    return wanted if wanted in names else names[0]


def _initial(request: HttpRequest, source: PhaseRun | None, phase: str) -> dict[str, Any]:
    if source is None:
        given = {name: request.GET.get(name) for name in ("starts_from", "dataset_version")}
        return {"name": phase.replace("_", " "), **given}
    return {
        "name": services.again(source.name),
        "dataset_version": source.dataset_version_id,
        "starts_from": source.starts_from_id,
    }
