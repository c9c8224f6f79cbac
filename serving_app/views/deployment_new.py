"""The form of a new deployment, and of a new revision of one: what is served, engine, the engine's typed settings, name."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.text import slugify
from django.views.decorators.http import require_http_methods, require_safe

from model_core.errors import ModelCoreError
from r1platform.access import current_project, require_role, signed_in
from r1platform.lib.ids import id_of
from r1platform.models import Project, Role
from serving_app import selectors, services
from serving_app.fit import Fit, fit, places_up
from serving_app.forms import DeploymentForm, EngineForm, RevisionForm, ShiftForm, engine_choices
from serving_app.models import Deployment, DeploymentRevision
from serving_app.observed import current_revision
from serving_app.states import ImportState
from serving_app.views.deployments import deployment_of
from training_app.views.fit import Check

NUM_INSTEAD = 5
"""Deployments that are offered to become a new revision of; any other one has the button on its page."""


@require_http_methods(["GET", "HEAD", "POST"])
def deployment_new(request: HttpRequest) -> HttpResponse:
    """The form; a POST creates the deployment and goes to its page."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    require_role(request.user, project, Role.EDITOR)
    form = DeploymentForm(request.POST or None, project=project, initial=_initial(request, project))
    engine = _engine_form(request, form)
    if _valid(request, form, engine) and (made := _create(request, project, form, engine)):
        messages.success(
            request, f"“{made.name}” is on its way: placed on a node, then loaded, then tried with a real answer."
        )
        return redirect("deployment-detail", deployment_id=made.pk)
    context = {
        "form": form,
        "engine_form": engine,
        "project": project,
        "engines": form.engines,
        "has_deployable": selectors.has_deployable(user=request.user, project=project),
        **_instead(request, project),
    }
    return render(request, "serving_app/deployments/new.html", context, status=422 if form.is_bound else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def deployment_revise(request: HttpRequest, deployment_id: int) -> HttpResponse:
    """Another model, engine or settings under the same name; a POST makes the revision."""
    deployment = deployment_of(request, deployment_id)
    require_role(request.user, deployment.project, Role.EDITOR)
    now = current_revision(deployment)
    form = RevisionForm(request.POST or None, project=deployment.project, initial=_initial_revision(request, now))
    engine = _engine_form(request, form, values=now.engine_config if now else None)
    plan = ShiftForm(request.POST or None)
    if _valid(request, form, engine, plan) and _revise(request, deployment, form, engine, plan):
        messages.success(
            request, f"A new revision of “{deployment.name}” starts beside the present one, which answers until it is ready."
        )
        return redirect("deployment-detail", deployment_id=deployment.pk)
    context = {
        "form": form,
        "engine_form": engine,
        "plan_form": plan,
        "deployment": deployment,
        "engines": form.engines,
        "project": deployment.project,
        "has_deployable": True,
    }
    return render(request, "serving_app/deployments/new.html", context, status=422 if form.is_bound else 200)


@require_safe
def engine_fields(request: HttpRequest) -> HttpResponse:
    """The settings of the engine that was picked, as fields."""
    name = request.GET.get("engine", "")
    if name not in {engine for engine, _title, _why in engine_choices()}:
        raise Http404(f"There is no engine “{name}”.")
    return render(request, "serving_app/deployments/_engine.html", {"engine_form": EngineForm(engine=name)})


@require_safe
def deployment_fit(request: HttpRequest) -> HttpResponse:
    """Whether what the form says so far has its place on the nodes that are up; nothing while something in it is wrong."""
    project = current_project(request)
    if project is None:
        raise Http404("There is no project.")
    require_role(request.user, project, Role.EDITOR)
    form = RevisionForm(request.GET, project=project)
    checks: list[Check] = []
    if form.is_valid():
        values = form.cleaned_data
        engine = EngineForm(request.GET, engine=values["engine"])
        artifact = values.get("imported_model") or values["checkpoint"]
        found = fit(artifact, values["engine"], engine.config(), places_up()) if engine.is_valid() else None
        checks = [fit_line(found)] if found is not None else []
    return render(request, "serving_app/deployments/_fit.html", {"checks": checks})


def fit_line(found: Fit) -> Check:
    """One line, in the form of the checks before a launch."""
    tones = {True: "waiting" if found.is_tight else "succeeded", False: "failed", None: "queued"}
    label = "Memory of each device" if found.num_devices > 1 else "Memory"
    formula = (
        f"weights {found.model.parameters} × {found.load.number_bytes} bytes / {found.load.devices}, cache of a token "
        f"{found.model.cache_numbers} numbers × {found.load.cache_number_bytes or found.load.number_bytes} bytes"
    )
    return Check(label, found.need.least, "bytes", tones[found.fits], found.words, formula)


def _valid(request: HttpRequest, *shown: forms.Form) -> bool:
    """Whether all are in order; each is looked at, so that every mistake is shown at once."""
    wrong = [form for form in shown if not form.is_valid()]
    return request.method == "POST" and not wrong


def _engine_form(request: HttpRequest, form: DeploymentForm, values: dict[str, Any] | None = None) -> EngineForm:
    usable = [name for name, _title, _why in form.engines]
    chosen = request.POST.get("engine") or str(form.get_initial_for_field(form.fields["engine"], "engine") or "")
    name = chosen if chosen in usable else usable[0]
    return EngineForm(request.POST or None, engine=name, values=values)


def _initial(request: HttpRequest, project: Project) -> dict[str, Any]:
    choices = [name for name, _title, _why in engine_choices()]
    initial: dict[str, Any] = {"engine": choices[0]}
    if (wanted := id_of(request.GET.get("imported_model", ""))) is not None:
        model = selectors.import_list(user=request.user, project=project).filter(pk=wanted, state=ImportState.READY).first()
        if model is not None:
            engine = next((name for name in choices if name not in model.refused_by), choices[0])
            return {"imported_model": model.pk, "name": _free_name(slugify(model.name)[:70] or "model"), "engine": engine}
    found = selectors.checkpoints_deployable(user=request.user, project=project)
    wanted = id_of(request.GET.get("checkpoint", ""))
    checkpoint = found.first() if wanted is None else found.filter(pk=wanted).first()
    if checkpoint is not None:
        name = slugify(checkpoint.run.name) or "model"
        initial |= {"checkpoint": checkpoint.pk, "name": _free_name(f"{name}-{checkpoint.step}")}
    return initial


def _instead(request: HttpRequest, project: Project) -> dict[str, Any]:
    """Deployments that the checkpoint of the address can become a new revision of: first those that serve what it was made from."""
    wanted = id_of(request.GET.get("checkpoint", ""))
    if wanted is None:
        return {}
    checkpoint = selectors.checkpoints_deployable(user=request.user, project=project).filter(pk=wanted).first()
    if checkpoint is None:
        return {}
    formers = selectors.formers_of(checkpoint, project=project)[:NUM_INSTEAD]
    others = selectors.deployment_list(user=request.user, project=project).exclude(pk__in=[one.pk for one in formers])
    return {"wanted": checkpoint, "formers": formers, "others": others.order_by("-id")[: NUM_INSTEAD - len(formers)]}


def _free_name(name: str) -> str:
    taken = set(Deployment.objects.filter(name__startswith=name).values_list("name", flat=True))
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _initial_revision(request: HttpRequest, now: DeploymentRevision | None) -> dict[str, Any]:
    initial: dict[str, Any] = {now.served.kind: now.served.artifact.pk, "engine": now.engine} if now else {}
    for name, other in (("checkpoint", "imported_model"), ("imported_model", "checkpoint")):
        if (wanted := id_of(request.GET.get(name, ""))) is not None:
            initial |= {name: wanted, other: None}
    return initial


def _create(request: HttpRequest, project: Project, form: DeploymentForm, engine: EngineForm) -> Deployment | None:
    values = form.cleaned_data
    try:
        return services.deployment_create(
            project=project,
            user=signed_in(request),
            name=values["name"],
            checkpoint=values["checkpoint"],
            imported_model=values.get("imported_model"),
            engine=values["engine"],
            engine_config=engine.config(),
            description=values["description"],
            replicas=values["replicas"],
            idle_seconds=60 * (values["idle_minutes"] or 0),
        )
    except ModelCoreError as error:
        _place(form, engine, error)
    return None


def _revise(
    request: HttpRequest, deployment: Deployment, form: DeploymentForm, engine: EngineForm, plan: ShiftForm
) -> bool:
    values = form.cleaned_data
    try:
        services.revision_create(
            deployment=deployment,
            user=signed_in(request),
            checkpoint=values["checkpoint"],
            imported_model=values.get("imported_model"),
            engine=values["engine"],
            engine_config=engine.config(),
            plan=plan.config(),
        )
    except ModelCoreError as error:
        _place(form, engine, error)
        return False
    return True


def _place(form: forms.Form, engine: EngineForm, error: ModelCoreError) -> None:
    """Puts the sentence at its field; an unknown one stands above the form."""
    if error.field.startswith("engine_config."):
        engine.place(type(error)(error.message, field=error.field.removeprefix("engine_config.")))
    else:
        form.add_error(error.field if error.field in form.fields else None, error.message)
