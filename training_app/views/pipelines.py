"""Pipelines: the list, making one from a template, one pipeline with its graph, fit check and launches."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from model_core.errors import ModelCoreError
from r1platform.access import for_user, require_role, signed_in
from r1platform.lib.ids import id_of
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Project, Role
from r1platform.project_pages import project_page
from r1platform.templatetags.r1 import duration, grouped
from r1platform.templatetags.r1_parts import may_edit
from training_app import selectors, services
from training_app.forms import PipelineForm
from training_app.gate_forms import BudgetForm
from training_app.models import Pipeline
from training_app.search_fields import answering_checkpoints, ready_versions
from training_app.views.fit import fit_check
from training_app.views.standing import pipeline_row, pipelines_of

PER_PAGE = 25
VERBS = (("run", "Run it alone"), ("earlier", "Move it earlier"), ("later", "Move it later"))
"""What can be done with a phase of the plan, besides taking it out."""
KINDS = ((False, "Begin with new weights"), (True, "Go on from a model that is there"))
NUM_LAUNCHES = 50
"""Of a pipeline launched more often, the newest are listed on its page; the API pages through all."""


@require_safe
@project_page
def pipeline_list(request: HttpRequest, project: Project) -> HttpResponse:
    """Every pipeline and where its newest launch stands."""
    rows = pipelines_of(user=request.user, project=project)
    text = request.GET.get("q", "").strip()
    if text:
        rows = rows.filter(name__icontains=text)
    page = Paginator(rows, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "rows": [pipeline_row(pipeline) for pipeline in page],
        "q": text,
        "project": project,
        "may_edit": may_edit(request.user, project),
    }
    return render(request, "training_app/pipelines/list.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@project_page
def pipeline_new(request: HttpRequest, project: Project) -> HttpResponse:
    """A pipeline from a template; a POST makes it and shows it, launched is it by hand.

    A link may fill in all of it (`?dataset_version=`, `?template=`, `?starts_from=`); without a template it is the first one that
    learns from what the version holds.
    """
    require_role(request.user, project, Role.EDITOR)
    templates = selectors.pipeline_templates()
    form = PipelineForm(request.POST or None, project=project, templates=templates, initial=_initial(request, project, templates))
    if request.method == "POST" and form.is_valid() and (pipeline := _create(request, form, project)):
        messages.success(request, f"“{pipeline.name}” is made. Look it over, then launch it.")
        return redirect("pipeline-detail", pipeline.pk)
    version_field: Any = form.fields["dataset_version"]
    context = {
        "form": form,
        "kinds": _kinds(templates, str(form["template"].value())),
        "chosen": form["template"].value(),
        "has_data": version_field.queryset.exists(),
        "project": project,
    }
    return render(request, "training_app/pipelines/new.html", context, status=422 if form.is_bound else 200)


def _kinds(templates: list[dict[str, Any]], chosen: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """The templates of each kind under its words; the kind of the chosen one stands first."""
    kinds = [(words, [t for t in templates if t["goes_on"] == goes_on]) for goes_on, words in KINDS]
    return sorted(kinds, key=lambda kind: chosen not in {t["name"] for t in kind[1]})


def _initial(request: HttpRequest, project: Project, templates: list[dict[str, Any]]) -> dict[str, Any]:
    """What the address names, and what follows from it: template, checkpoint and a name that is free."""
    version = _row_named(request, ready_versions(project), "dataset_version")
    start = _row_named(request, answering_checkpoints(project), "starts_from")
    holds = services.learnt_from(version) if version else "problems"
    fitting = [t for t in templates if t["learns_from"] == holds] or templates
    chosen = next((t for t in templates if t["name"] == request.GET.get("template")), fitting[0])
    name = f"{chosen['title']}: {version}" if version else ""
    return {
        "template": chosen["name"], "dataset_version": version.pk if version else None, "name": _free_name(project, name),
        "starts_from": (start or answering_checkpoints(project).first()) if chosen["goes_on"] else start,
    }  # fmt: skip


def _row_named(request: HttpRequest, rows: QuerySet[Any], key: str) -> Any:
    """The row that the address names by its number; None when it names none of these."""
    return rows.filter(pk=id_of(request.GET.get(key, ""))).first()


def _free_name(project: Project, name: str) -> str:
    """The name, with a number behind it when it is taken."""
    taken = set(Pipeline.objects.filter(project=project, name__startswith=name).values_list("name", flat=True))
    return next(one for one in (name, *(f"{name}, {i}" for i in range(2, len(taken) + 3))) if one not in taken) if name else ""


def _create(request: HttpRequest, form: PipelineForm, project: Project) -> Pipeline | None:
    values = form.cleaned_data
    try:
        return services.pipeline_from_template(
            project=project,
            user=signed_in(request),
            template=values["template"],
            name=values["name"],
            dataset_version=values["dataset_version"],
            seed=values["seed"],
            starts_from=values["starts_from"],
        )
    except ModelCoreError as error:
        form.add_error(error.field if error.field in form.fields else None, error.message)
        return None


@require_safe
@login_required
def pipeline_detail(request: HttpRequest, pipeline_id: int) -> HttpResponse:
    """The graph with the newest launch on it, the fit check, the newest launches."""
    found = pipeline_of(request, pipeline_id)
    pipeline = pipelines_of(user=request.user, project=found.project).get(pk=found.pk)
    row = pipeline_row(pipeline)
    sources = ("starts_from", "rollouts_from", "from_checkpoint__run")
    phases = list(pipeline.phases.select_related("dataset_version__dataset", *sources))
    checks = [] if row["is_live"] else fit_check(pipeline, phases)
    context = {
        **row,
        "phases": phases,
        "checks": checks,
        "misfits": [check for check in checks if check.tone == "failed"],
        "launches": pipeline.launches.order_by("-number")[:NUM_LAUNCHES],
        "may_edit": may_edit(request.user, found.project),
        "project": found.project,
        "budget": budget_words(found),
        "verbs": VERBS,
    }
    return render(request, "training_app/pipelines/detail.html", context)


def budget_words(pipeline: Pipeline) -> list[str]:
    """The limits of a pipeline, each in words."""
    words = []
    if pipeline.budget_device_seconds:
        words.append(f"{duration(pipeline.budget_device_seconds)} of device time")
    if pipeline.budget_dollars:
        words.append(f"${pipeline.budget_dollars:,.2f} at ${pipeline.dollars_per_device_hour:,.2f} a device-hour")
    if pipeline.budget_wall_seconds:
        words.append(f"{duration(pipeline.budget_wall_seconds)} on the clock")
    if pipeline.budget_tokens:
        words.append(f"{grouped(pipeline.budget_tokens)} tokens")
    return words


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def pipeline_budget(request: HttpRequest, pipeline_id: int) -> HttpResponse:
    """The limits in a form; launches that exist keep theirs."""
    pipeline = pipeline_of(request, pipeline_id)
    require_role(request.user, pipeline.project, Role.EDITOR)
    form = BudgetForm(request.POST or None, values={name: getattr(pipeline, name) for name in BudgetForm.base_fields})
    if request.method == "POST" and form.is_valid():
        try:
            services.pipeline_budget_set(pipeline=pipeline, user=signed_in(request), **form.budgets())
        except ModelCoreError as error:
            form.add_error(error.field if error.field in form.fields else None, error.message)
        else:
            messages.success(request, "The budget is saved. The next launch uses it.")
            return redirect("pipeline-detail", pipeline.pk)
    context = {"form": form, "pipeline": pipeline, "project": pipeline.project}
    return render(request, "training_app/pipelines/budget.html", context, status=422 if form.is_bound else 200)


def pipeline_of(request: HttpRequest, pipeline_id: int) -> Pipeline:
    """The pipeline, if the user may see it."""
    return get_object_or_404(for_user(Pipeline.objects.select_related("project"), request.user), pk=pipeline_id)


@require_POST
@login_required
def pipeline_launch(request: HttpRequest, pipeline_id: int) -> HttpResponse:
    """Launches it; one launch of a pipeline is live at a time."""
    pipeline = pipeline_of(request, pipeline_id)
    require_role(request.user, pipeline.project, Role.EDITOR)
    try:
        launch = services.pipeline_launch(pipeline=pipeline, user=signed_in(request))
    except IllegalTransition as error:
        messages.error(request, str(error))
    except ModelCoreError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, "Launched: its first phase is in the queue.")
        return redirect("launch-detail", launch.pk)
    return redirect("pipeline-detail", pipeline.pk)
