"""Choices among rows that may be thousands: a select of the newest, and a search over all of them where there are more.

With scripts the select follows what is typed; without, sending the form searches and asks to choose. What is chosen has to
match what is searched for, so that neither is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django import forms
from django.db.models import Case, IntegerField, Q, QuerySet, Value, When
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from r1platform.models import Project
from training_app.models import Checkpoint, DatasetVersion, PhaseRun
from training_app.reward_models import PHASE as REWARD_MODEL
from training_app.states import VersionState

NUM_OFFERED = 50
Rows = QuerySet[Any]
FILLER = {"run", "step", "rows", "row", "·"}
"""Words of a label that say nothing about the row."""


def ready_versions(project: Project) -> QuerySet[DatasetVersion]:
    """Versions that a phase can learn from, newest first."""
    found = DatasetVersion.objects.filter(dataset__project=project, state=VersionState.READY)
    return found.select_related("dataset").order_by("-id")


def checkpoints(project: Project) -> QuerySet[Checkpoint]:
    """Checkpoints that are there, newest first."""
    return Checkpoint.objects.filter(run__project=project, removed_at=None).select_related("run").order_by("-id")


def answering_checkpoints(project: Project) -> QuerySet[Checkpoint]:
    """Checkpoints that can answer: final ones first, then the newest."""
    first = Case(When(is_final=True, then=Value(0)), default=Value(1), output_field=IntegerField())
    return checkpoints(project).exclude(run__phase=REWARD_MODEL).order_by(first, "-id")


def runs(project: Project) -> QuerySet[PhaseRun]:
    """Runs of the project, newest first."""
    return PhaseRun.objects.filter(project=project).only("pk", "name", "phase").order_by("-id")


def _version_word(word: str) -> Q:
    named = Q(dataset__name__icontains=word)
    return named | Q(number=int(word[1:])) if word.startswith("v") and _is_number(word[1:]) else named


def _checkpoint_word(word: str) -> Q:
    if word == "final":
        return Q(is_final=True)
    named = Q(run__name__icontains=word)
    return named | Q(run_id=int(word)) | Q(step=int(word)) if _is_number(word) else named


def _run_word(word: str) -> Q:
    named = Q(name__icontains=word) | Q(phase__icontains=word)
    return named | Q(pk=int(word)) if _is_number(word) else named


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 10


def _version_label(row: DatasetVersion) -> str:
    return f"{row.dataset.name} v{row.number} · {row.num_rows} rows"


def _checkpoint_label(row: Checkpoint) -> str:
    return f"Run {row.run_id} · {row.run.name} · step {row.step}{' · final' if row.is_final else ''}"


def _answering_label(row: Checkpoint) -> str:
    """With what was measured of it."""
    found = {key: row.metrics.get(key, row.metrics.get(f"eval/{key}")) for key in ("accuracy", "quality")}
    told = {key: value for key, value in found.items() if isinstance(value, int | float)}
    shown = [f"accuracy {value:.1%}" if key == "accuracy" else f"quality {value:.2f}" for key, value in told.items()]
    return " · ".join([_checkpoint_label(row), *shown])


def _run_label(row: PhaseRun) -> str:
    return f"Run {row.pk} · {row.name}"


class Kind(NamedTuple):
    """Rows that can be chosen: which a project has, what one word of a search asks for, a row's label, what to search by."""

    rows: Callable[[Project], Rows]
    word_fits: Callable[[str], Q]
    label: Callable[[Any], str]
    hint: str


KINDS = {
    "versions": Kind(ready_versions, _version_word, _version_label, "dataset or number: sums v2"),
    "checkpoints": Kind(checkpoints, _checkpoint_word, _checkpoint_label, "run, number or step"),
    "answering": Kind(answering_checkpoints, _checkpoint_word, _answering_label, "run, number or step"),
    "runs": Kind(runs, _run_word, _run_label, "name, number or phase"),
}


def matching(kind: str, rows: Rows, text: str) -> Rows:
    """The rows that every word of the text fits."""
    for word in text.lower().split()[:8]:
        if word not in FILLER:
            rows = rows.filter(KINDS[kind].word_fits(word))
    return rows


def offered(rows: Rows, chosen: str) -> Rows:
    """The first rows and one more, which tells that there are others; what is chosen stands before them."""
    if not _is_number(chosen):
        return rows[: NUM_OFFERED + 1]
    first = Case(When(pk=int(chosen), then=Value(0)), default=Value(1), output_field=IntegerField())
    return rows.order_by(first, *rows.query.order_by)[: NUM_OFFERED + 1]


class Wanted(str):
    """The value of a choice, a row's id or nothing, with the text that was searched for."""

    text: str = ""

    @classmethod
    def of(cls, value: Any, text: str) -> Wanted:
        """Both, as they came from a browser."""
        made = cls(value or "")
        made.text = " ".join(text.split())[:200]
        return made


def pairs(kind: str, rows: Rows, value: Wanted, empty: str | None) -> tuple[list[tuple[str, str]], str, bool]:
    """(value, label) of each option, which is chosen, and whether there are more rows than these: of those that fit the search
    the first is chosen unless another was."""
    found = list(offered(matching(kind, rows, value.text), str(value)))
    label = KINDS[kind].label
    options = [(str(row.pk), label(row)) for row in found[:NUM_OFFERED]]
    chosen = options[0][0] if value.text and options and str(value) not in dict(options) else str(value)
    if value.text and not options:
        empty = f"Nothing fits “{value.text}”"
    return ([] if empty is None else [("", empty)]) + options, chosen, len(found) > NUM_OFFERED


class SearchedSelect(forms.Select):
    """A select of the newest rows; the search box is there when there are more."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Wanted:
        return Wanted.of(super().value_from_datadict(data, files, name), data.get(f"{name}_search", ""))

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        choices: Any = self.choices
        field: SearchedField = choices.field
        assert field.queryset is not None
        wanted = value if isinstance(value, Wanted) else Wanted.of(None if value is None else str(value), "")
        empty = None if field.empty_label is None else str(field.empty_label)
        options, chosen, has_more = pairs(field.kind, field.queryset, wanted, empty)
        control = forms.Select(self.attrs, options).render(name, chosen, attrs, renderer)
        if not (has_more or wanted.text):
            return control
        url = reverse("choice-list", args=[field.project_id, field.kind])
        asked = urlencode({"name": name, "empty": empty or ""})
        hint = f"Search by {KINDS[field.kind].hint}"
        return format_html(
            '<div class="searched"><input type="search" name="{0}_search" value="{1}" placeholder="{2}" aria-label="{3}: {2}" '
            'autocomplete="off" hx-get="{4}?{5}" hx-trigger="input changed delay:200ms" hx-target="#{6}" hx-include="#{6}">'
            "{7}</div>",
            name, wanted.text, hint, field.label or name.replace("_", " "), url, asked, (attrs or {}).get("id", ""), control,
        )  # fmt: skip


class SearchedField(forms.ModelChoiceField):  # type: ignore[type-arg]
    """One row of a kind in a project; `offer` says which project's."""

    widget = SearchedSelect
    project_id = 0

    def __init__(self, kind: str, **kwargs: Any) -> None:
        self.kind = kind
        super().__init__(queryset=PhaseRun.objects.none(), **kwargs)

    def offer(self, project: Project) -> None:
        """Lets it choose among the project's rows."""
        self.project_id, self.queryset = project.pk, KINDS[self.kind].rows(project)

    def label_from_instance(self, obj: Any) -> str:
        return KINDS[self.kind].label(obj)

    def clean(self, value: Any) -> Any:
        text = getattr(value, "text", "")
        assert self.queryset is not None, "`offer` says which rows there are"
        chosen = int(value) if text and _is_number(value) else None
        if text and not matching(self.kind, self.queryset, text).filter(pk=chosen).exists():
            raise forms.ValidationError(
                f"What is chosen does not fit the search “{text}”. Choose one of those that were found, or empty the search."
            )
        return super().clean(value)
