"""Evaluations: models against benchmarks with published figures, what runs, and what runs measured on held-out problems."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from model_core.errors import ModelCoreError
from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.identity import extractor_of
from model_core.tasks import TASKS
from r1platform.access import for_user, require_role, signed_in
from r1platform.lib.ids import id_of
from r1platform.models import Project, Role
from r1platform.project_pages import project_page
from r1platform.templatetags.r1_parts import may_edit
from training_app import selectors, services
from training_app.evaluation_forms import EvaluationForm, SettingsForm, TaskForm, what_choices
from training_app.models import TASK, Checkpoint, Evaluation, PhaseRun
from training_app.schema_forms import SchemaForm
from training_app.search_fields import answering_checkpoints

PER_PAGE = 50
SORTS: dict[str, tuple[str, Any]] = {
    "newest": ("Newest first", F("id").desc()),
    "accuracy": ("Best accuracy", F("result__accuracy").desc(nulls_last=True)),
    "quality": ("Best quality, lower bound", F("result__quality_low").desc(nulls_last=True)),
}


@require_safe
@project_page
def evaluation_list(request: HttpRequest, project: Project) -> HttpResponse:
    """The matrix and every evaluation, newest first."""
    found = selectors.evaluation_list(user=request.user, project=project)
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "rows": [
            {"evaluation": one, "title": selectors.benchmark_title(one), "changed": selectors.changed_settings(one)} for one in page
        ],
        "matrix": selectors.evaluation_matrix(user=request.user, project=project),
        "project": project,
        "may_edit": may_edit(request.user, project),
    }
    return render(request, "training_app/evaluations/list.html", context)


@require_safe
@project_page
def held_out_list(request: HttpRequest, project: Project) -> HttpResponse:
    """Runs that ended with a measurement on held-out problems."""
    runs = for_user(PhaseRun.objects.filter(project=project, result__num_problems__gt=0), request.user)
    runs = runs.select_related("launch__pipeline", "dataset_version__dataset").defer("config", "notes")
    sort = request.GET.get("sort", "")
    _label, order = SORTS.get(sort, SORTS["newest"])
    page = Paginator(runs.order_by(order, "-id"), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "sorts": [(key, label) for key, (label, _order) in SORTS.items()],
        "sort": sort,
        "components": sorted({name for run in page for name in ((run.result or {}).get("components") or {})}),
        "project": project,
    }
    return render(request, "training_app/evaluations/held_out.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@project_page
def evaluation_new(request: HttpRequest, project: Project) -> HttpResponse:
    """Who answers and what is asked; the address says what, so that its settings can be shown."""
    require_role(request.user, project, Role.EDITOR)
    groups = what_choices(project)
    known = [value for _title, choices in groups for value, _label in choices]
    checkpoint = _answering(request, project)
    proposed = _learnt(checkpoint) if checkpoint else ""
    what = next(value for value in (request.GET.get("what"), proposed, known[0]) if value in known)
    benchmark, _, data = what.partition(":")
    initial = {"checkpoint": checkpoint and checkpoint.pk}
    form = EvaluationForm(request.POST or None, project=project, benchmark=benchmark, initial=initial)
    config = SettingsForm(request.POST or None, benchmark=benchmark)
    own = _source(checkpoint).get("task_config") if checkpoint and what == proposed else None
    task = TaskForm(request.POST or None, task=data, values=own) if benchmark == TASK else None
    if request.method == "POST" and (made := _create(request, project, benchmark, data, form, config, task)):
        messages.success(request, "The evaluation is queued. It starts as soon as it can be asked.")
        return redirect("evaluation-detail", made.pk)
    cls = BENCHMARKS.get(benchmark)
    context = {
        "form": form, "config": config, "task": task, "groups": groups, "what": what, "project": project, "benchmark": cls,
        "words": (TASKS.get(data).__doc__ if benchmark == TASK else cls.__doc__) or "", "extractor": extractor_of(cls),
        "changed": config.is_bound and config.has_changed(), "missing": _missing(groups),
    }  # fmt: skip
    return render(request, "training_app/evaluations/new.html", context, status=422 if form.is_bound else 200)


def _answering(request: HttpRequest, project: Project) -> Checkpoint | None:
    """The checkpoint that the address names, else the newest final one, else the newest; none when an endpoint is to answer."""
    rows, named = answering_checkpoints(project).select_related("run__dataset_version"), request.GET.get("checkpoint")
    if named is None:
        return rows.first()
    return rows.filter(pk=id_of(named) or 0).first()


def _learnt(checkpoint: Checkpoint) -> str:
    """What its run had to learn, as `benchmark:data`: the benchmark of its gate, else the task of its data; empty when neither."""
    names = [name for name in BENCHMARKS.names() if checkpoint.run.gate_metric in {name, f"{name}_low", f"{name}_high"}]
    if names:
        return f"{names[0]}:{names[0]}"
    task = _source(checkpoint).get("task")
    return f"{TASK}:{task}" if task else ""


def _source(checkpoint: Checkpoint) -> dict[str, Any]:
    """Where the data of its run came from."""
    version = checkpoint.run.dataset_version
    return version.config.get("source_config", {}) if version else {}


def _missing(groups: list[tuple[str, list[tuple[str, str]]]]) -> list[str]:
    """Titles of the benchmarks whose questions are not at hand."""
    there = set(dict(groups[0][1]).values())
    return [str(cls.title) for name, cls in BENCHMARKS.items() if cls.references and str(cls.title) not in there]


def _create(
    request: HttpRequest, project: Project, benchmark: str, data: str, form: EvaluationForm, config: SettingsForm,
    task: TaskForm | None,
) -> Evaluation | None:  # fmt: skip
    if not all([form.is_valid(), config.is_valid(), task is None or task.is_valid()]):
        return None
    try:
        return services.evaluation_create(
            project=project, user=signed_in(request), benchmark=benchmark, data=data, config=config.config(),
            task_config=task.config() if task else None, **form.cleaned_data,
        )  # fmt: skip
    except ModelCoreError as error:
        _place(error, form, {"config": config, "task_config": task})
        return None


def _place(error: ModelCoreError, form: EvaluationForm, parts: dict[str, SchemaForm | None]) -> None:
    """Puts the sentence at its field."""
    head, _, rest = error.field.partition(".")
    part = parts.get(head)
    if part is not None and rest in part.fields:
        part.add_error(rest, error.message)
    else:
        form.add_error(error.field if error.field in form.fields else None, error.message)
