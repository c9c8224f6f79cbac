"""Forms of datasets and pipelines. Settings that a configuration defines come from `schema_forms`; here is the rest."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django import forms
from pydantic import BaseModel

from model_core.config import PRESETS, MappingConfig, PrepareConfig, RunConfig, preset
from model_core.config.run import PROFILES
from model_core.errors import ConfigError, ModelCoreError
from model_core.filters import FILTERS
from model_core.phases import PHASES
from model_core.rewards import REWARDS
from model_core.sources import SOURCES
from model_core.tasks import TASKS
from r1platform.form_words import WordedForm
from r1platform.models import Project
from training_app.gate_forms import GateFields
from training_app.models import Dataset, DatasetKind, Pipeline, PipelinePhase
from training_app.reward_models import PHASE as REWARD_MODEL
from training_app.reward_models import REWARD, reward_models
from training_app.schema_forms import SchemaForm, form_field, label_of, sentences
from training_app.search_fields import SearchedField

REWARD_MODEL_FIELD = f"reward.settings.{REWARD}.checkpoint"
UPLOAD_SOURCES = ("jsonl", "csv", "parquet", "text")


class DatasetForm(WordedForm):
    """What a dataset is called and which of the article's three kinds it is."""

    name = forms.CharField(max_length=120, help_text="How you will find it again.")
    kind = forms.ChoiceField(choices=DatasetKind.choices, initial=DatasetKind.DOMAIN)
    description = forms.CharField(required=False, max_length=2000, widget=forms.Textarea(attrs={"rows": 2}))

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip()
        if Dataset.objects.filter(project=self.project, name=name).exists():
            raise forms.ValidationError(
                f"There is a dataset “{name}” already. Choose another name, or add a version to it."
            )
        return name


class UploadForm(WordedForm):
    """One file; what it holds is looked at after it has arrived."""

    file = forms.FileField(
        help_text="JSON Lines, CSV, Parquet or plain text, also compressed with gzip or Zstandard.",
        widget=forms.ClearableFileInput(attrs={"accept": ".jsonl,.json,.ndjson,.csv,.tsv,.parquet,.txt,.gz,.zst"}),
    )


class BenchmarkForm(UploadForm):
    """A benchmark's questions, for the contamination filter."""

    name = forms.CharField(max_length=60, help_text="Small letters, digits, - and _: gsm8k, math500, your-own.")
    field_order = ["name", "file"]


class FiltersForm(WordedForm):
    """The funnel: each filter on or off with its own settings, in the order of the list."""

    def __init__(
        self, *args: Any, steps: list[dict[str, Any]] | None = None, benchmarks: list[str] | None = None, **kwargs: Any
    ) -> None:
        """`benchmarks` are the names of those whose questions are at hand."""
        super().__init__(*args, **{**kwargs, "prefix": "filters"})
        given = {step["name"]: step.get("config", {}) for step in steps or []}
        for name, cls in FILTERS.items():
            help_text = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
            title = str(getattr(cls, "title", label_of(name)))
            self.fields[name] = forms.BooleanField(
                label=title, required=False, initial=name in given, help_text=help_text
            )
            for key, info in cls.Config.model_fields.items():
                initial = given.get(name, {}).get(key, info.get_default(call_default_factory=True))
                made = form_field(info, initial=initial, choices=None, name=key)
                made.required = False
                if key == "benchmarks" and getattr(cls, "needs_benchmarks", False):
                    made = _several(made, [str(found) for found in benchmarks or []])
                self.fields[f"{name}.{key}"] = made

    def rows(self) -> list[dict[str, Any]]:
        """Each filter with the fields of its settings, for the template."""
        return [
            {
                "name": name,
                "use": self[name],
                "settings": [self[key] for key in self.fields if key.startswith(f"{name}.")],
            }
            for name in self.fields
            if "." not in name
        ]

    def steps(self) -> list[dict[str, Any]]:
        """The chosen filters as the configuration wants them."""
        chosen = [name for name in self.fields if "." not in name and self.cleaned_data.get(name)]
        return [{"name": name, "config": self._config(name)} for name in chosen]

    def place(self, where: str, sentence: str) -> bool:
        """Puts a sentence about `<number of the step>.config.<setting>` at its field; False when there is no such one."""
        number, _, rest = where.partition(".")
        steps = self.steps()
        if not number.isdecimal() or int(number) >= len(steps):
            return False
        name = steps[int(number)]["name"]
        field = f"{name}.{rest.removeprefix('config.')}"
        self.add_error(field if field in self.fields else name, sentence)
        return True

    def _config(self, name: str) -> dict[str, Any]:
        found = {key: self.cleaned_data.get(key) for key in self.fields if key.startswith(f"{name}.")}
        return {
            key.removeprefix(f"{name}."): value for key, value in found.items() if value is not None and value != ""
        }


class PrepareForm(SchemaForm):
    """How a version is prepared: the settings of its source, the field mapping of an upload, the split."""

    def __init__(
        self, *args: Any, source: str, task: str = "", columns: list[str] | None = None, is_open: bool = False, **kwargs: Any
    ) -> None:
        """`columns` are the fields to map; with `is_open` they are only proposed, because there may be others."""
        source_config = SOURCES.get(source).Config
        nested: dict[str, type[BaseModel]] = {"source_config": source_config}
        without = {"source", "filters"}
        choices: dict[str, list[tuple[str, str]]] = {}
        if "task" in source_config.model_fields:
            choices["source_config.task"] = task_choices()
        for name in ("task_config", "config"):
            if task and name in source_config.model_fields:
                nested[f"source_config.{name}"] = TASKS.get(task).Config
        if columns is None:
            without.add("mapping")
        elif not is_open:
            choices |= _mapping_choices(columns)
        values = {**(kwargs.pop("values", None) or {}), "source": source}
        if task:
            values["source_config"] = {**values.get("source_config", {}), "task": task}
        super().__init__(
            *args,
            model=PrepareConfig,
            values=values,
            nested=nested,
            choices=choices,
            without=frozenset(without),
            **kwargs,
        )
        for name in choices:
            if name.startswith("mapping.") and name != "mapping.prompt":
                self.fields[name].required = False
        if columns is not None and not is_open:
            self.fields["mapping.keep"] = _several(self.fields["mapping.keep"], columns)
        elif is_open:
            for name in _mapping_choices([]):
                self.fields[name].widget.attrs["list"] = "columns"
        self.steps: list[dict[str, Any]] = []
        self.funnel: FiltersForm | None = None

    def given(self) -> dict[str, Any]:
        out = {**super().given(), "filters": self.steps}
        if "mapping" in self.without:
            out.pop("mapping", None)
        return out

    def place(self, error: ModelCoreError) -> None:
        """Also at the settings of the filters."""
        rest = [(where, sentence) for where, sentence in sentences(error) if not self._is_of_filter(where, sentence)]
        for where, sentence in rest:
            super().place(ConfigError(sentence, field=where))

    def _is_of_filter(self, where: str, sentence: str) -> bool:
        start, _, place = where.partition(".")
        return start == "filters" and self.funnel is not None and self.funnel.place(place, sentence)

    def config_with(self, funnel: FiltersForm) -> dict[str, Any] | None:
        """The whole configuration with the funnel; None, with the sentences in place, when it is refused."""
        self.funnel, self.steps = funnel, funnel.steps()
        try:
            return PrepareConfig.parse(self.given()).resolved()
        except ModelCoreError as error:
            self.place(error)
            return None


def run_presets() -> dict[str, dict[str, dict[str, Any]]]:
    """Named values by the group of a run's settings that they fill in: shapes of the model, whose vocabulary stays as the
    form has it, and profiles of the reward, which leave every other component empty."""
    empty = dict.fromkeys(REWARDS.names())
    return {
        "model": {name: preset(name).model_dump(exclude={"vocab_size"}) for name in PRESETS},
        "reward": {name: {"weights": {**empty, **weights}} for name, weights in PROFILES.items()},
    }


def task_choices() -> list[tuple[str, str]]:
    """Tasks that can be generated."""
    return [(name, str(getattr(TASKS.get(name), "title", label_of(name)))) for name in TASKS.names()]


def _mapping_choices(columns: list[str]) -> dict[str, list[tuple[str, str]]]:
    own = [(name, name) for name in columns]
    return {
        "mapping.prompt": own,
        "mapping.messages": [("", "No chat"), *own],
        "mapping.completion": [("", "No demonstration"), *own],
        "mapping.reasoning": [("", "Not apart"), *own],
        "mapping.answer": [("", "From the completion"), *own],
        "mapping.chosen": [("", "No pairs"), *own],
        "mapping.rejected": [("", "No pairs"), *own],
    }


def _several(field: forms.Field, names: list[str]) -> forms.Field:
    """In place of a list as JSON: any of these names, ticked."""
    return forms.MultipleChoiceField(
        choices=[(name, name) for name in names], required=False, initial=field.initial, label=field.label,
        help_text=field.help_text, widget=forms.CheckboxSelectMultiple,
    )  # fmt: skip


def guessed_mapping(columns: list[str]) -> dict[str, Any]:
    """A first guess from the names that such files usually have."""
    lower = {name.lower(): name for name in columns}

    def first(*names: str) -> str:
        return next((lower[name] for name in names if name in lower), "")

    keep = [lower["pass_rate"]] if "pass_rate" in lower else []
    if {"chosen", "rejected"} <= lower.keys():
        prompt = first("prompt", "question", "instruction", "input") or columns[0]
        return {"prompt": prompt, "chosen": lower["chosen"], "rejected": lower["rejected"], "keep": keep}
    if chat := first("messages", "conversation", "conversations"):
        return {"prompt": "", "messages": chat, "answer": first("answer", "final_answer"), "keep": keep}
    prompt = first("prompt", "question", "problem", "instruction", "input", "text") or (
        columns[0] if columns else "prompt"
    )
    completion = first("completion", "response", "solution", "output", "demonstration")
    answer = first("answer", "final_answer", "target", "label")
    if not completion and answer and lower.keys() >= {"question", "answer"}:
        return {"prompt": prompt, "completion": answer, "answer": "", "answer_pattern": r"####\s*(.+)$", "keep": keep}
    reasoning = first("reasoning", "reasoning_content", "thinking", "thought")
    mapping = {"prompt": prompt, "completion": completion, "answer": answer, "answer_pattern": ""}
    return {**mapping, "reasoning": reasoning, "keep": keep}


class RewardedForm(SchemaForm):
    """The settings of a run, in which the reward `preference` takes its reward model by a choice where there is one."""

    def offer_reward_models(self, project: Project, earlier: Collection[str] = ()) -> None:
        """Lets it choose among the project's reward models and those of the phases `earlier` in the plan."""
        settings = self.values.get("reward", {}).get("settings", {})
        own = settings.get(REWARD, {})
        choices, chosen = reward_models(project, earlier=earlier, named=str(own.get("checkpoint", "")))
        if not choices:
            return
        if chosen:  # it is said once
            self.fields["reward.settings"].initial = {**settings, REWARD: {k: v for k, v in own.items() if k != "checkpoint"}}
        made = forms.ChoiceField(
            choices=[("", "None"), *choices], required=False, initial=chosen, label="Reward model",
            help_text="Whose judgement the reward “Preference” is; it counts with that weight.",
        )  # fmt: skip
        self.fields[REWARD_MODEL_FIELD] = made
        next(group for group in self.found_groups if group.path == "reward").names.append(REWARD_MODEL_FIELD)

    def given(self) -> dict[str, Any]:
        out = super().given()
        chosen, reward = self.cleaned_data.get(REWARD_MODEL_FIELD), out.get("reward", {})
        settings = reward.get("settings") or {}
        if chosen and isinstance(settings, dict) and isinstance(own := settings.get(REWARD, {}), dict):
            reward["settings"] = {**settings, REWARD: {**own, "checkpoint": chosen}}
        return out


class PipelineForm(WordedForm):
    """A pipeline from a template: what it is called and what it learns from."""

    name = forms.CharField(max_length=120, help_text="How you will find it again.")
    template = forms.ChoiceField(widget=forms.RadioSelect)
    dataset_version = SearchedField(
        "versions",
        empty_label="Choose a version…",
        label="Dataset version",
        help_text="Every phase learns from it; each phase can be given another one afterwards.",
    )
    starts_from = SearchedField(
        "answering", required=False, empty_label="Choose a checkpoint…", label="Goes on from",
        help_text="The model that learns; the checkpoint itself stays as it is.",
    )  # fmt: skip
    seed = forms.IntegerField(
        min_value=0, max_value=2**31 - 1, initial=0, help_text="Seed of weights, order and sampling."
    )

    def __init__(self, *args: Any, project: Project, templates: list[dict[str, Any]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project
        self.goes_on = {one["name"] for one in templates if one["goes_on"]}
        template, version, start = (self.fields[name] for name in ("template", "dataset_version", "starts_from"))
        assert isinstance(template, forms.ChoiceField) and isinstance(version, SearchedField) and isinstance(start, SearchedField)
        template.choices = [(one["name"], one["title"]) for one in templates]
        version.offer(project)
        start.offer(project)

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip()
        if Pipeline.objects.filter(project=self.project, name=name).exists():
            raise forms.ValidationError(f"There is a pipeline “{name}” already. Choose another name.")
        return name

    def clean(self) -> dict[str, Any]:
        """The checkpoint is not shown, and does not count, for a template that begins with new weights."""
        values: dict[str, Any] = super().clean() or {}
        if values.get("template") not in self.goes_on:
            values["starts_from"] = None
        return values


class PhaseForm(GateFields):
    """What the pipeline decides about a phase: data, share of the budget, gate, processes."""

    dataset_version = SearchedField("versions", empty_label="None", label="Dataset version", required=False)
    budget_fraction = forms.FloatField(
        min_value=0.001,
        max_value=1,
        label="Share of the budget",
        widget=forms.NumberInput(attrs={"step": "any"}),
        help_text="Of each limit of the pipeline, 0 to 1. The phase ends there even if steps are left.",
    )
    num_processes = forms.IntegerField(
        min_value=1, max_value=1024, label="Processes", help_text="Each one holds a device."
    )

    def __init__(self, *args: Any, phase: PipelinePhase, **kwargs: Any) -> None:
        kwargs["initial"] = {name: getattr(phase, name) for name in self.base_fields} | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)
        version = self.fields["dataset_version"]
        assert isinstance(version, SearchedField)
        version.offer(phase.pipeline.project)
        self.offer_files(phase.pipeline.project)
        self.order_fields(["dataset_version", "budget_fraction", "num_processes"])


class PhaseConfigForm(RewardedForm):
    """The settings of a phase; what the pipeline decides (phase, budget, processes) is not among them."""

    def __init__(self, *args: Any, phase: PipelinePhase, num_processes: int | None = None, **kwargs: Any) -> None:
        without = {"phase", "budget", "seed", "parallel.num_processes", "gate"}
        parallel = {**phase.config.get("parallel", {}), "num_processes": num_processes or phase.num_processes}
        if phase.starts_from_id is not None:
            without |= {"model", "tokenizer"}
        super().__init__(
            *args,
            model=RunConfig,
            values={**phase.config, "phase": phase.phase, "parallel": parallel, "gate": {}},
            nested={"phase_config": PHASES.get(phase.phase).Config},
            keys={"reward.weights": REWARDS.names()},
            without=frozenset(without),
            presets=run_presets(),
            **kwargs,
        )
        if phase.pipeline_id is not None:
            before = phase.pipeline.phases.filter(position__lt=phase.position, phase=REWARD_MODEL).order_by("position")
            self.offer_reward_models(phase.pipeline.project, [str(name) for name in before.values_list("name", flat=True)])


__all__ = [
    "UPLOAD_SOURCES",
    "DatasetForm",
    "FiltersForm",
    "MappingConfig",
    "PhaseConfigForm",
    "PhaseForm",
    "PipelineForm",
    "PrepareForm",
    "UploadForm",
    "guessed_mapping",
    "sentences",
]
