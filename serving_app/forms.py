"""Forms of deployments and the playground; an engine's form is made from the schema of its `Config`.

Forms turn text into values; what the values may be is the Config's to say, and its sentence is shown at the field.
"""

from __future__ import annotations

import json
from typing import Any

from django import forms

from model_core.serving.engines import ENGINES
from r1platform.models import Project
from serving_app.models import Conversation, Deployment, ImportedModel
from serving_app.services.deployments import name_taken
from serving_app.shifting import ShiftPlan
from serving_app.states import DeploymentState, ImportState
from training_app.schema_forms import SchemaForm
from training_app.search_fields import SearchedField

PREFIX = "config"
"""Of the names of an engine's settings in the page, so that none meets a field of the deployment."""


def engine_choices() -> list[tuple[str, str, str]]:
    """Name, title and why it cannot be used here ("" when it can) of every engine, the usable ones first."""
    found = [(name, str(engine.title), engine().installed() or "") for name, engine in ENGINES.items() if name != "fake"]
    return sorted(found, key=lambda item: (item[2] != "", item[0]))


class DeploymentForm(forms.Form):
    """What to serve, on which engine, under which name; the engine's own settings are in `EngineForm`."""

    checkpoint = SearchedField("answering", required=False, empty_label="Choose a checkpoint…")
    imported_model = forms.ModelChoiceField(
        queryset=ImportedModel.objects.none(),
        required=False,
        empty_label="None: a checkpoint is served",
        help_text="A directory of others that was approved; SGLang serves any, the built-in engine the classes that it reads.",
    )
    name = forms.SlugField(
        max_length=80, help_text="Model id in the API, such as “sums-r1”. Letters, digits, “-” and “_”."
    )
    description = forms.CharField(required=False, max_length=500)
    engine = forms.ChoiceField()
    replicas = forms.IntegerField(
        min_value=1,
        max_value=16,
        initial=1,
        help_text="Engine processes that share the requests. On a node with GPUs each holds its own; elsewhere they share "
        "the processor.",
    )

    idle_minutes = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=10_080,
        label="Sleep after",
        help_text="Minutes without a request after which it gives its devices back; the next request starts it and waits. "
        "Empty: it never sleeps.",
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.engines = engine_choices()
        checkpoint, engine = self.fields["checkpoint"], self.fields["engine"]
        assert isinstance(checkpoint, SearchedField) and isinstance(engine, forms.ChoiceField)
        checkpoint.offer(project)
        engine.choices = [(name, title) for name, title, _why in self.engines]
        imported = self.fields["imported_model"]
        assert isinstance(imported, forms.ModelChoiceField)
        imported.queryset = ImportedModel.objects.filter(project=project, state=ImportState.READY, removed_at=None)
        if not imported.queryset.exists():
            del self.fields["imported_model"]

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if Deployment.objects.filter(name=name).exists():
            raise forms.ValidationError(name_taken(name))
        return name

    def clean(self) -> dict[str, Any]:
        """Nothing chosen is an error here: a new revision would else serve what the present one does."""
        values: dict[str, Any] = self.cleaned_data
        names = {"checkpoint", "imported_model"}
        if not names & self.errors.keys() and not any(values.get(name) for name in names):
            self.add_error("checkpoint", "Choose what is to be served.")
        return values

    def clean_engine(self) -> str:
        engine: str = self.cleaned_data["engine"]
        why = next(why for name, _title, why in self.engines if name == engine)
        if why:
            raise forms.ValidationError(why)
        return engine


class RevisionForm(DeploymentForm):
    """A new revision: other checkpoint, engine or settings under the same name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("name", "description", "replicas", "idle_minutes"):
            del self.fields[name]


class EngineForm(SchemaForm):
    """The settings of one engine, typed as its `Config` says; `config()` is the validated JSON."""

    def __init__(self, *args: Any, engine: str, values: dict[str, Any] | None = None) -> None:
        super().__init__(*args, model=ENGINES.get(engine).Config, values=values, prefix=PREFIX)


class ShiftForm(SchemaForm):
    """How a revision takes over; `config()` is the validated JSON."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, model=ShiftPlan, prefix="plan")


class ConversationForm(forms.Form):
    """Which model answers and how; used for a new chat and in the panel of an old one."""

    deployment = forms.ModelChoiceField(queryset=Deployment.objects.none(), label="Model")
    beside = forms.ModelMultipleChoiceField(
        queryset=Deployment.objects.none(),
        required=False,
        label="Side by side with",
        widget=forms.CheckboxSelectMultiple,
        help_text="Up to three more models answer every message beside the first; you choose the better answer.",
    )
    system_prompt = forms.CharField(
        required=False,
        max_length=8_000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="What the model is told before every conversation. Small models are usually trained without one.",
    )
    temperature = forms.FloatField(
        required=False,
        min_value=0,
        max_value=2,
        help_text="0 answers the same each time; 1 samples as trained.",
        widget=forms.NumberInput(attrs={"step": "0.05"}),
    )
    top_p = forms.FloatField(
        required=False,
        min_value=0.01,
        max_value=1,
        help_text="Only the likeliest tokens that add up to this are drawn from.",
        widget=forms.NumberInput(attrs={"step": "0.01"}),
    )
    max_tokens = forms.IntegerField(
        required=False, min_value=1, max_value=131_072, help_text="Longest answer, thinking included, in tokens."
    )
    thinking_budget = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=131_072,
        help_text="Tokens after which thinking is ended and the answer begins; empty: it thinks as long as it likes.",
    )
    token_logprobs = forms.BooleanField(
        required=False,
        label="Token probabilities",
        help_text="Keeps each token with its probability and the likeliest others, to look at and to go on from.",
    )
    seed = forms.IntegerField(
        required=False, min_value=0, max_value=2**31 - 1, help_text="Equal seeds give equal answers."
    )

    def __init__(self, *args: Any, project: Project, conversation: Conversation | None = None, **kwargs: Any) -> None:
        if conversation is not None:
            model = conversation.deployment
            kwargs["initial"] = {
                "deployment": model.pk if model is not None and model.deleted_at is None else None,
                "beside": conversation.beside,
                "system_prompt": conversation.system_prompt,
                **conversation.parameters,
                **(kwargs.get("initial") or {}),
            }
        super().__init__(*args, **kwargs)
        field = self.fields["deployment"]
        assert isinstance(field, forms.ModelChoiceField)
        field.empty_label = None if self.initial.get("deployment") else "Choose a model…"
        field.queryset = Deployment.objects.filter(project=project, deleted_at=None).order_by("-id")
        others = self.fields["beside"]
        assert isinstance(others, forms.ModelMultipleChoiceField)
        others.queryset = field.queryset.exclude(state__in=[DeploymentState.STOPPED, DeploymentState.FAILED])
        if others.queryset.count() < 2:
            del self.fields["beside"]

    def others(self) -> list[int]:
        """Ids of the deployments that answer beside the first, which is no other even when it was ticked."""
        return [found.pk for found in self.cleaned_data.get("beside") or () if found != self.cleaned_data["deployment"]]

    def parameters(self, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the request to the model carries: what was filled in, and of `before` what this form does not show."""
        names = ("temperature", "top_p", "max_tokens", "thinking_budget", "seed", "token_logprobs")
        hidden = {name: value for name, value in (before or {}).items() if name not in names}
        shown = {name: self.cleaned_data[name] for name in names if self.cleaned_data.get(name) not in (None, False)}
        return hidden | shown


def as_json(value: Any) -> str:
    """Readable JSON for pages and snippets."""
    return json.dumps(value, indent=2, ensure_ascii=False)
