"""The forms of an evaluation: who answers, what is asked, and the pinned settings with the reason to leave them alone."""

from __future__ import annotations

from typing import Any

from django import forms

from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.tasks import TASKS
from r1platform.form_words import WordedForm
from r1platform.models import Project
from training_app.models import TASK
from training_app.schema_forms import SchemaForm, label_of
from training_app.search_fields import SearchedField
from training_app.selectors.benchmark_files import benchmark_files

CUSTOM = "custom"


def what_choices(project: Project) -> list[tuple[str, list[tuple[str, str]]]]:
    """Everything that can be asked, as `benchmark:data`: benchmarks with a file at hand, own files, tasks."""
    files = benchmark_files(project)
    named = [name for name in BENCHMARKS.names() if name not in {TASK, CUSTOM}]
    own = [name for name in files if name not in named]
    return [
        ("Benchmarks", [(f"{name}:{name}", str(BENCHMARKS.get(name).title)) for name in named if name in files]),
        ("Your own files", [(f"{CUSTOM}:{name}", name) for name in own]),
        ("Generated tasks", [(f"{TASK}:{name}", str(getattr(TASKS.get(name), "title", label_of(name)))) for name in TASKS.names()]),
    ]


class EvaluationForm(WordedForm):
    """Who answers, how many problems, and the seed."""

    checkpoint = SearchedField(
        "answering", required=False, empty_label="None: an endpoint answers",
        help_text="It is loaded on one device of a node that has its files.",
    )  # fmt: skip
    endpoint = forms.CharField(
        required=False, max_length=300,
        widget=forms.TextInput(attrs={"placeholder": "https://api.example.com/v1", "autocomplete": "off"}),
        help_text="Address of an OpenAI-compatible endpoint, when no checkpoint answers.",
    )  # fmt: skip
    endpoint_model = forms.CharField(required=False, max_length=200, label="Model", help_text="Empty: the first that it lists.")
    endpoint_key = forms.CharField(
        required=False, max_length=500, label="Key", widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Shown nowhere, and forgotten when the evaluation ends.",
    )  # fmt: skip
    limit = forms.IntegerField(
        required=False, min_value=1, max_value=100_000, label="Problems", help_text="Only the first so many; empty: all."
    )
    seed = forms.IntegerField(min_value=0, max_value=2**31 - 1, initial=0, help_text="Seed of sampling.")

    def __init__(self, *args: Any, project: Project, benchmark: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        checkpoint = self.fields["checkpoint"]
        assert isinstance(checkpoint, SearchedField)
        checkpoint.offer(project)
        if benchmark == TASK:
            self.fields["limit"].help_text = "How many are made; empty: 200."
            self.fields["seed"].help_text = "Seed of the problems and of sampling."


class SettingsForm(SchemaForm):
    """Prompt and sampling of a benchmark; the defaults are the pinned ones."""

    def __init__(self, *args: Any, benchmark: str, **kwargs: Any) -> None:
        super().__init__(*args, model=BENCHMARKS.get(benchmark).Config, prefix="config", **kwargs)


class TaskForm(SchemaForm):
    """The settings of a task."""

    def __init__(self, *args: Any, task: str, **kwargs: Any) -> None:
        super().__init__(*args, model=TASKS.get(task).Config, prefix="task_config", **kwargs)
