"""Form fields of a gate and of a pipeline's budget. The services decide what is possible; each sentence comes to its field."""

from __future__ import annotations

from typing import Any

from django import forms

from model_core.config.gate import HELD_OUT
from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.rewards import REWARDS
from r1platform.form_words import WordedForm
from r1platform.models import Project
from training_app.models import Upload
from training_app.states import GateAction, GateDirection


def metric_choices() -> list[Any]:
    """Every metric with the ends of its interval, in groups; which of the rewards a phase measures is checked when it is saved."""
    names = [*HELD_OUT, *(name for name in REWARDS.names() if name not in HELD_OUT)]
    groups: list[Any] = [("", "No gate")]
    for title, found in (("On held-out problems", names), ("A benchmark's accuracy", BENCHMARKS.names())):
        groups.append((title, [choice for name in found for choice in _choices(name)]))
    return groups


def _choices(name: str) -> list[tuple[str, str]]:
    word = str(BENCHMARKS.get(name).title) if name in BENCHMARKS.names() else name.replace("_", " ").capitalize()
    return [(f"{name}_low", f"{word}, lower bound"), (name, f"{word}, mean"), (f"{name}_high", f"{word}, upper bound")]


class UploadChoice(forms.ModelChoiceField):  # type: ignore[type-arg]
    """Shows the file and the benchmark that it was marked as."""

    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.file_name}{f' · {obj.benchmark}' if obj.benchmark else ''}"


class GateFields(WordedForm):
    """What a phase has to reach, and what follows when it does not."""

    gate_metric = forms.ChoiceField(
        choices=metric_choices,
        required=False,
        label="Gate",
        help_text="What is compared at the end. A bound is the end of the interval that holds the true value with 95 % confidence.",
    )
    gate_direction = forms.ChoiceField(
        choices=GateDirection.choices,
        required=False,
        label="Has to be",
        help_text="At least, with the lower bound; at most, with the upper bound; the mean either way.",
    )
    gate_threshold = forms.FloatField(
        required=False,
        label="Threshold",
        widget=forms.NumberInput(attrs={"step": "any"}),
        help_text="The next phase starts at this value, or on its right side.",
    )
    gate_action = forms.ChoiceField(
        choices=GateAction.choices, label="Otherwise", help_text="What follows when the gate does not pass."
    )
    stop_early = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=1000,
        label="Ends early after",
        help_text="So many held-out measurements in a row, while training, that pass the gate with 95 % confidence; what is left "
        "of the budget is not used. 0: never.",
    )
    benchmark_data = UploadChoice(
        queryset=Upload.objects.none(),
        required=False,
        empty_label="The project's file of that benchmark",
        label="File of the benchmark",
        help_text="Rows of the benchmark that the gate names, as JSONL.",
    )

    def offer_files(self, project: Project) -> None:
        """Offers the uploads of the project that a benchmark can be read from."""
        field = self.fields["benchmark_data"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = Upload.objects.filter(project=project, format="jsonl").order_by("-id")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        cleaned["gate_direction"] = cleaned.get("gate_direction") or GateDirection.AT_LEAST
        if cleaned.get("gate_metric") and cleaned.get("gate_threshold") is None and "gate_threshold" not in self.errors:
            self.add_error(
                "gate_threshold", "A gate needs a threshold, such as 0.75. Choose “No gate” to go on in any case."
            )
        return cleaned


class BudgetForm(WordedForm):
    """The limits of a pipeline; an empty field is no limit."""

    budget_device_seconds = forms.FloatField(
        required=False, label="Device-hours", help_text="Hours times devices.", widget=forms.NumberInput(attrs={"step": "any"})
    )
    budget_dollars = forms.FloatField(
        required=False, label="Dollars", help_text="At the price below.", widget=forms.NumberInput(attrs={"step": "any"})
    )
    dollars_per_device_hour = forms.FloatField(
        required=False, label="Dollars per device-hour", widget=forms.NumberInput(attrs={"step": "any"}),
        help_text="What one device costs in an hour.",
    )  # fmt: skip
    budget_wall_seconds = forms.FloatField(
        required=False, label="Hours on the clock", widget=forms.NumberInput(attrs={"step": "any"}),
        help_text="While its phases run.",
    )  # fmt: skip
    budget_tokens = forms.IntegerField(required=False, label="Tokens", help_text="Processed in training steps.", max_value=2**53)

    HOURS = ("budget_device_seconds", "budget_wall_seconds")
    """Fields that are hours here and seconds in the row."""

    def __init__(self, *args: Any, values: dict[str, Any], **kwargs: Any) -> None:
        kwargs["initial"] = {**values, **{name: values[name] / 3600 for name in self.HOURS if values[name]}}
        super().__init__(*args, **kwargs)

    def budgets(self) -> dict[str, float | None]:
        """What was filled in, as the service takes it."""
        given = dict(self.cleaned_data)
        return {**given, **{name: given[name] * 3600 for name in self.HOURS if given[name] is not None}}
