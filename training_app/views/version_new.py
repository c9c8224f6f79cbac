"""Making a dataset or another version of one: where the rows come from, then name, mapping, funnel, and a look before preparing.

A new dataset and a new version share one form; the address says what it is about: `?upload=7&as=chats`, `?from=hub`,
`?from=generated&task=sums`, `?from=rollouts&run=3`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.db.models import Count, Q
from django.forms import BoundField
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from model_core.errors import ModelCoreError
from model_core.sources import SOURCES
from model_core.tasks import TASKS
from r1platform.access import for_user, require_role, signed_in
from r1platform.lib.ids import id_of
from r1platform.models import Project, Role
from r1platform.project_pages import project_page
from training_app import selectors, services
from training_app.forms import DatasetForm, FiltersForm, PrepareForm, UploadForm, guessed_mapping
from training_app.models import Dataset, DatasetKind, DatasetVersion, PhaseRun, Upload
from training_app.schema_forms import Group
from training_app.views.datasets import dataset_of

NUM_SHOWN = 4
"""Rows of an upload that are shown before its fields are mapped."""
WITHOUT_FILE = ("generated", "hub", services.OF_A_RUN)


@dataclass(frozen=True)
class Origin:
    """Where the rows come from."""

    source: str
    upload: Upload | None = None
    run: PhaseRun | None = None
    task: str = ""

    @property
    def is_mapped(self) -> bool:
        """Whether its rows are finished and need no mapping."""
        cls = SOURCES.get(self.source)
        return getattr(cls, "is_mapped", False) or hasattr(cls, "split_rows")

    @property
    def readers(self) -> tuple[str, ...]:
        """Other ways to read the same file."""
        return services.readers_of(self.upload) if self.upload else ()


@require_http_methods(["GET", "HEAD", "POST"])
@project_page
def dataset_new(request: HttpRequest, project: Project) -> HttpResponse:
    """A dataset with its first version."""
    require_role(request.user, project, Role.EDITOR)
    return _new(request, project, None)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def version_new(request: HttpRequest, dataset_id: int) -> HttpResponse:
    """Another version of a dataset; it starts with the settings of the newest."""
    dataset = dataset_of(request, dataset_id)
    require_role(request.user, dataset.project, Role.EDITOR)
    return _new(request, dataset.project, dataset)


def _new(request: HttpRequest, project: Project, dataset: Dataset | None) -> HttpResponse:
    context: dict[str, Any] = {"dataset": dataset, "project": project, "tasks": TASKS.names()}
    origin = _origin(request, project)
    if origin is not None and (origin.run or origin.upload or origin.source != services.OF_A_RUN):
        return _prepare(request, project, dataset, origin, context)
    runs = selectors.runs_with_rollouts(project)
    if origin is not None:
        stored = Count("events", filter=Q(events__kind="rollouts"))
        context["runs"] = runs.annotate(num_stored=stored).select_related("launch__pipeline")[:100]
        return render(request, "training_app/datasets/runs.html", context)
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid() and (made := _receive(request, form, project)):
        return redirect(f"{request.path}?upload={made.pk}")
    last = dataset.versions.exclude(upload=None).order_by("-number").first() if dataset else None
    context |= {
        "form": form, "last_upload": last.upload if last else None, "max_bytes": settings.R1_MAX_UPLOAD_BYTES,
        "hub": settings.R1_HUB_URL.split("//")[-1], "num_runs": runs.count(),
    }  # fmt: skip
    return render(request, "training_app/datasets/source.html", context, status=422 if form.is_bound else 200)


def _origin(request: HttpRequest, project: Project) -> Origin | None:
    """What the address says; None while nothing is chosen. An upload or a run of others is not found."""
    source, task = request.GET.get("from", ""), request.GET.get("task", "")
    if (number := id_of(request.GET.get("upload", ""))) is not None:
        uploads = for_user(Upload.objects.filter(project=project), request.user)
        upload = get_object_or_404(uploads, pk=number)
        readers, wanted = services.readers_of(upload), request.GET.get("as", "")
        return Origin(wanted if wanted in readers else _likely(upload), upload)
    if source not in WITHOUT_FILE:
        return None
    number = id_of(request.GET.get("run", "")) if source == services.OF_A_RUN else None
    runs = for_user(selectors.runs_with_rollouts(project), request.user)
    run = get_object_or_404(runs, pk=number) if number is not None else None
    return Origin(source, None, run, task if task in TASKS.names() else "")


def _likely(upload: Upload) -> str:
    """How a file is read as long as nobody says otherwise: rated chats and rollouts have their own fields."""
    columns = {str(name) for name in upload.columns}
    for source, fields in (("chats", {"messages", "rating"}), (services.OF_A_RUN, {"prompt", "completions"})):
        if source in services.readers_of(upload) and fields <= columns:
            return source
    return upload.format


def _number(request: HttpRequest, name: str) -> int | None:
    return id_of(request.GET.get(name, ""))


def _receive(request: HttpRequest, form: UploadForm, project: Project) -> Upload | None:
    file = form.cleaned_data["file"]
    try:
        return services.upload_create(project=project, user=signed_in(request), file_name=file.name, file=file)
    except ModelCoreError as error:
        form.add_error("file", error.message)
        return None


def _prepare(
    request: HttpRequest, project: Project, dataset: Dataset | None, origin: Origin, context: dict[str, Any]
) -> HttpResponse:
    """The second step: name (of a new dataset), settings of the source, mapping, funnel."""
    last = dataset.versions.order_by("-number").first() if dataset else None
    data = request.POST if request.method == "POST" else None
    forms = _Forms(project, origin, last, data, is_new=dataset is None)
    if data is not None and "look" in data:
        context |= forms.looked(data)
    elif data is not None and forms.are_valid():
        version = _create(request, project, dataset, forms)
        if version is not None:
            messages.success(request, f"Preparing {version}. This page follows it.")
            return redirect("version-detail", version.dataset_id, version.number)
    upload = origin.upload
    context |= {
        "form": forms.form, "groups": in_order(forms.form, has_file=upload is not None), "funnel": forms.funnel,
        "about": forms.about, "origin": origin, "source": origin.source,
        "upload": upload, "run": origin.run, "task": forms.task, "has_benchmarks": bool(forms.benchmarks),
        "gaps": preview_gaps(upload, forms.form) if upload is not None and not origin.is_mapped else [],
        "back": reverse("dataset-detail", args=[dataset.pk]) if dataset else reverse("dataset-list"),
    }  # fmt: skip
    is_refused = data is not None and ("look" not in data or forms.form.errors)
    return render(request, "training_app/datasets/prepare.html", context, status=422 if is_refused else 200)


class _Forms:
    """The parts of the second step."""

    def __init__(
        self, project: Project, origin: Origin, last: DatasetVersion | None, data: QueryDict | None, *, is_new: bool
    ) -> None:
        self.project, self.origin, self.last = project, origin, last
        self.benchmarks = list(selectors.benchmark_files(project))
        self.task = self._task()
        self.form = self._form(data)
        steps = last.config.get("filters") if last else []
        self.funnel = FiltersForm(data, steps=steps, benchmarks=self.benchmarks)
        self.about = DatasetForm(data, project=project, initial=_named(origin)) if is_new else None

    def are_valid(self) -> bool:
        """Asks each of them, so that every error is shown."""
        parts = [part for part in (self.form, self.funnel, self.about) if part is not None]
        valid = [part.is_valid() for part in parts]
        return all(valid)

    def looked(self, data: QueryDict) -> dict[str, Any]:
        """The first rows as these settings read them, for the template; what is refused stands in the form."""
        if not self.form.is_valid():
            return {}
        try:
            found = services.rows_look(
                project=self.project, config=self.form.given(), upload=self.origin.upload, run=self.origin.run
            )
        except ModelCoreError as error:
            self.form.place(error)
            return {}
        is_guessed = self.origin.source == "hub" and data.get("mapping.prompt") not in found["columns"]
        if is_guessed:
            self._propose(data, [str(name) for name in found["columns"]])
        became = [one["row"] for one in found["mapped"] if "row" in one]
        return {"look": found, "is_guessed": is_guessed, "rows_become": became}

    def _propose(self, data: QueryDict, columns: list[str]) -> None:
        """Fills the mapping in, now that the fields are known."""
        filled = data.copy()
        for name, value in guessed_mapping(columns).items():
            if isinstance(value, str):
                filled[f"mapping.{name}"] = value
        self.form = self._form(filled)

    def _task(self) -> str:
        if self.origin.source != "generated":
            return ""
        last: str = self._proposed().get("source_config", {}).get("task", "")
        return self.origin.task or last or TASKS.names()[0]

    def _proposed(self) -> dict[str, Any]:
        """The settings of the newest version, when it was made from the same kind of source."""
        config: dict[str, Any] = dict(self.last.config) if self.last is not None else {}
        return config if config.get("source") == self.origin.source else {}

    def _form(self, data: QueryDict | None) -> PrepareForm:
        origin = self.origin
        values = self._proposed()
        if values.get("source_config", {}).get("task", "") != self.task:
            values = {}
        if origin.is_mapped:
            return PrepareForm(data, source=origin.source, task=self.task, values=values)
        columns = [str(name) for name in origin.upload.columns] if origin.upload else []
        values = values or ({"mapping": guessed_mapping(columns)} if columns else {})
        return PrepareForm(data, source=origin.source, columns=columns, is_open=origin.upload is None, values=values)


def in_order(form: PrepareForm, *, has_file: bool) -> list[tuple[Group, list[BoundField]]]:
    """The groups as a person thinks of them: of a file its fields first, of all else what it is; the split comes last.

    A source's limit stands behind its own settings.
    """
    first = ("mapping", "source_config") if has_file else ("source_config", "mapping")
    ranks = {"": len(first), **{path: rank for rank, path in enumerate(first)}}
    groups = sorted(form.groups(), key=lambda found: ranks.get(found[0].path.partition(".")[0], 0))
    return [(group, sorted(fields, key=lambda bound: bound.name.endswith(".max_rows"))) for group, fields in groups]


def preview_gaps(upload: Upload, form: PrepareForm) -> list[dict[str, Any]]:
    """Fields that the mapping takes and that some of the shown rows lack, with how many."""
    is_chat = form["mapping.messages"].value()
    parts = ("messages",) if is_chat else ("prompt", "completion", "reasoning", "chosen", "rejected")
    names = [form[f"mapping.{part}"].value() for part in (*parts, "answer")]
    rows = (upload.preview or [])[:NUM_SHOWN]
    gaps = [
        {"name": name, "missing": sum(not str(row.get(name) or "").strip() for row in rows), "of": len(rows)}
        for name in names
        if name
    ]
    return [gap for gap in gaps if gap["missing"]]


def _named(origin: Origin) -> dict[str, str]:
    if origin.upload is not None:
        return {"name": origin.upload.file_name.split(".")[0]}
    if origin.run is not None:
        return {"name": f"{origin.run.name} {origin.run.pk}, kept rollouts", "kind": DatasetKind.SELF}
    return {"kind": DatasetKind.DOMAIN if origin.source == "hub" else DatasetKind.SELF}


def _create(request: HttpRequest, project: Project, dataset: Dataset | None, forms: _Forms) -> DatasetVersion | None:
    """The dataset, if it is new, and the version; neither when one is refused."""
    config = forms.form.config_with(forms.funnel)
    if config is None:
        return None
    try:
        with transaction.atomic():
            if dataset is None:
                assert forms.about is not None
                dataset = services.dataset_create(project=project, user=signed_in(request), **forms.about.cleaned_data)
            return services.version_prepare(
                dataset=dataset, user=signed_in(request), config=config, upload=forms.origin.upload, run=forms.origin.run
            )
    except ModelCoreError as error:
        forms.form.place(error)
        return None
