"""Forms of the review queue: what is shown of it, and what becomes a dataset."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import Q, QuerySet

from r1platform.models import Project
from serving_app.judged_rows import DEMONSTRATIONS, PAIRS
from serving_app.models import Deployment, Judgement, JudgementKind
from serving_app.states import ReviewState
from training_app.models import Dataset

NAME = "What people said"


class QueueForm(forms.Form):
    """Filters of the queue, all of them in the address."""

    state = forms.ChoiceField(choices=[*ReviewState.choices, ("all", "All")], required=False)
    kind = forms.ChoiceField(choices=[("", "Of every kind"), *JudgementKind.choices], required=False)
    deployment = forms.ModelChoiceField(queryset=Deployment.objects.none(), required=False, empty_label="Of every model")
    q = forms.CharField(required=False, max_length=200, label="Search")

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["deployment"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = Deployment.objects.filter(project=project).order_by("-id")

    def narrowed(self, found: QuerySet[Judgement]) -> QuerySet[Judgement]:
        """The judgements that the filters let through; without a state those that wait."""
        values = self.cleaned_data if self.is_valid() else {}
        state = values.get("state") or ReviewState.PENDING
        if state != "all":
            found = found.filter(state=state)
        if kind := values.get("kind"):
            found = found.filter(kind=kind)
        if deployment := values.get("deployment"):
            found = found.filter(Q(deployment=deployment) | Q(other_deployment=deployment))
        if text := values.get("q"):
            found = found.filter(
                Q(chosen__icontains=text) | Q(rejected__icontains=text) | Q(comment__icontains=text) | Q(prompt__icontains=text)
            )
        return found


class JudgedDatasetForm(forms.Form):
    """What the accepted judgements become, and where."""

    form = forms.ChoiceField(
        label="Rows",
        choices=[(PAIRS, "Pairs of a better and a worse answer"), (DEMONSTRATIONS, "Good answers alone")],
        help_text="Pairs train a reward model; good answers are demonstrations for supervised steps.",
    )
    dataset = forms.ModelChoiceField(
        queryset=Dataset.objects.none(),
        required=False,
        empty_label="A new dataset",
        label="Dataset",
        help_text="A dataset that is there gets another version; its old ones stay as they are.",
    )
    name = forms.CharField(required=False, max_length=120, label="Name of the new dataset")
    held_out_fraction = forms.FloatField(
        min_value=0,
        max_value=0.9,
        initial=0.1,
        label="Held out",
        help_text="Share of the prompts that is never trained on, to measure with.",
        widget=forms.NumberInput(attrs={"step": "0.05"}),
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["dataset"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = Dataset.objects.filter(project=project, versions__judgements__isnull=False).distinct().order_by("-id")
        self.initial.setdefault("name", _free_name(project))

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if not values.get("dataset") and not str(values.get("name", "")).strip():
            self.add_error("name", "A new dataset needs a name; or choose one that is there.")
        return values


def _free_name(project: Project) -> str:
    """A name that no dataset of the project has."""
    taken = set(Dataset.objects.filter(project=project, name__startswith=NAME).values_list("name", flat=True))
    return next(one for one in (NAME, *(f"{NAME} {i}" for i in range(2, len(taken) + 3))) if one not in taken)
