"""A form from a Pydantic configuration: labels from names, help from docstrings, errors at the field they belong to.

Every setting is one field called by its dotted path. Nested models become groups; a free dictionary becomes the
group of the class that `nested` names for it, or JSON. Validation is the configuration's own: the form only parses.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin

from django import forms
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from model_core.config import StrictModel
from model_core.config.base import first_named
from model_core.errors import ConfigError, ModelCoreError
from r1platform.form_words import WordedForm


@dataclass
class Group:
    """Settings that stand together: a nested model."""

    path: str
    title: str
    help: str
    names: list[str] = field(default_factory=list)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Named values of its settings: choosing one fills them in, and each can still be changed."""


class JSONText(forms.JSONField):
    """JSON with one setting a line."""

    widget = forms.Textarea(attrs={"rows": 4, "spellcheck": "false", "class": "mono"})

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


class Numbers(forms.Field):
    """A list of numbers with commas or blanks between; None where nothing was written."""

    widget = forms.TextInput(attrs={"spellcheck": "false"})

    def __init__(self, *args: Any, number: type[int] | type[float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.number = number

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> list[int | float] | None:
        found: list[int | float] = []
        for word in str(value or "").strip("[] \t").replace(",", " ").split():
            try:
                found.append(self.number(word))
            except ValueError:
                kind = "whole number" if self.number is int else "number"
                raise forms.ValidationError(f"“{word}” is no {kind}. Write them with commas between, such as 1, 2, 4.") from None
        return found or None


class SchemaForm(WordedForm):
    """The settings of `model`; `config()` is the complete validated JSON after `is_valid()`.

    `nested` maps the path of a free dictionary to the class of its settings, `choices` the path of a string to what
    it may be, `keys` the path of a dictionary of numbers to its possible keys, `presets` the path of a group to its named
    values; `without` leaves settings out: they keep what `values` says.
    """

    def __init__(
        self,
        *args: Any,
        model: type[StrictModel],
        values: Mapping[str, Any] | None = None,
        nested: Mapping[str, type[BaseModel]] | None = None,
        choices: Mapping[str, list[tuple[str, str]]] | None = None,
        keys: Mapping[str, list[str]] | None = None,
        without: frozenset[str] = frozenset(),
        presets: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.presets = presets or {}
        self.model, self.values = model, dict(values or {})
        self.nested, self.choices, self.keys = nested or {}, choices or {}, keys or {}
        self.without = without
        self.found_groups: list[Group] = []
        self.readers: dict[str, tuple[str, ...]] = {}
        self._walk(model, (), Group("", "", ""))

    def _walk(self, model: type[BaseModel], path: tuple[str, ...], group: Group) -> None:
        group.presets = self.presets.get(group.path, {})
        self.found_groups.append(group)
        later: list[tuple[type[BaseModel], tuple[str, ...], FieldInfo]] = []
        for name, info in model.model_fields.items():
            here = (*path, name)
            dotted = ".".join(here)
            if dotted in self.without:
                continue
            inner = self.nested.get(dotted) or _model_of(info.annotation)
            if inner is not None:
                later.append((inner, here, info))
            else:
                self._add(dotted, here, info, group)
        for inner, here, info in later:
            self._walk(inner, here, Group(".".join(here), label_of(here[-1]), info.description or ""))

    def _add(self, dotted: str, path: tuple[str, ...], info: FieldInfo, group: Group) -> None:
        if dotted in self.keys:
            given = self._value(path, info) or {}
            for key in self.keys[dotted]:
                weight = forms.FloatField(label=label_of(key), required=False, initial=given.get(key), widget=_number())
                self._put(f"{dotted}.{key}", (*path, key), weight, group)
            return
        initial = self._value(path, info)
        if path[-1] == "warmup_steps":
            initial = self._own_warmup(path[:-1], initial, info.default)
        made = form_field(info, initial=initial, choices=self.choices.get(dotted), name=path[-1])
        if path[-1] == "warmup_steps":
            made.widget.attrs["placeholder"] = f"{info.default}, or all steps if they are fewer"
        self._put(dotted, path, made, group)

    def _put(self, dotted: str, path: tuple[str, ...], made: forms.Field, group: Group) -> None:
        self.fields[dotted] = made
        self.readers[dotted] = path
        group.names.append(dotted)

    def _value(self, path: tuple[str, ...], info: FieldInfo) -> Any:
        at: Any = self.values
        for key in path:
            if not isinstance(at, Mapping) or key not in at:
                return None if info.is_required() else info.get_default(call_default_factory=True)
            at = at[key]
        return at

    def _own_warmup(self, path: tuple[str, ...], value: Any, default: int) -> Any:
        """A warm-up that somebody chose. The default is left empty, so that it follows the steps when those change."""
        at: Any = self.values
        for key in path:
            at = at.get(key, {}) if isinstance(at, Mapping) else {}
        steps = at.get("steps", default) if isinstance(at, Mapping) else default
        return None if value == min(default, steps) else value

    def groups(self) -> Iterator[tuple[Group, list[forms.BoundField]]]:
        """Each group that has a setting, with its bound fields."""
        for group in self.found_groups:
            if group.names:
                yield group, [self[name] for name in group.names]

    def open_groups(self) -> set[str]:
        """Paths of the groups that hold an error: they are shown unfolded."""
        return {group.path for group in self.found_groups if any(name in self.errors for name in group.names)}

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            self.validate()
        return cleaned

    def validate(self) -> None:
        """Asks the configuration; its sentences go to their fields."""
        try:
            self.parsed = self.model.parse(self.given()).resolved()
        except ModelCoreError as error:
            self.place(error)

    def given(self) -> dict[str, Any]:
        """What was filled in, nested, above what the form leaves out."""
        out: dict[str, Any] = {}
        for name in sorted(self.without):
            _keep(out, self.values, name.split("."))
        for dotted, path in self.readers.items():
            value = self.cleaned_data.get(dotted)
            at = out
            for key in path[:-1]:
                at = at.setdefault(key, {})
            if value is not None and value != "":
                at[path[-1]] = value
            elif self._may_be_empty(dotted):
                at[path[-1]] = "" if isinstance(self.fields[dotted], forms.CharField) else None
        return out

    def _may_be_empty(self, dotted: str) -> bool:
        return getattr(self.fields[dotted], "empty_is_value", False)

    def place(self, error: ModelCoreError) -> None:
        """Puts each sentence of an error at the field that it names, in the form's words; the rest goes above it."""
        names = {name.rsplit(".", 1)[-1] for name in self.without}
        labels = {name: label_of(name) for name in names}
        labels |= {name.rsplit(".", 1)[-1]: str(made.label) for name, made in self.fields.items()}
        for where, sentence in sentences(error):
            self.add_error(self._nearest(where, sentence), in_words(sentence, labels))

    def _nearest(self, where: str, sentence: str) -> str | None:
        """The field at `where`; of a group the one that the sentence names first, else its first; of a setting that is
        not in the form the neighbour that the sentence names too."""
        if where in self.fields:
            return where
        inside = self._inside(where)
        neighbours = inside or self._inside(where.rpartition(".")[0])
        named = first_named(sentence, [name.rsplit(".", 1)[-1] for name in neighbours])
        found = (name for name in neighbours if name.rsplit(".", 1)[-1] == named)
        return next(found, inside[0] if inside else None)

    def _inside(self, group: str) -> list[str]:
        return [name for name in self.fields if group and name.startswith(f"{group}.")]

    def config(self) -> dict[str, Any]:
        """The complete configuration."""
        return dict(self.parsed)


def sentences(error: ModelCoreError) -> Iterator[tuple[str, str]]:
    """(dotted field, sentence) of each thing that is wrong."""
    cause = error.__cause__
    if not isinstance(error, ConfigError) or not error.parts or not isinstance(cause, ValidationError):
        yield error.field, error.message
        return
    for (where, _words), item in zip(error.parts, cause.errors(), strict=True):
        yield where, _sentence(item)


LIMITS = {
    "greater_than_equal": ("At least", "ge"),
    "greater_than": ("Above", "gt"),
    "less_than_equal": ("At most", "le"),
    "less_than": ("Below", "lt"),
}
"""(word, key of the limit) of each kind of error that is about a number's range."""


def _sentence(item: Any) -> str:
    if item["type"] in LIMITS:
        word, key = LIMITS[item["type"]]
        return f"{word} {item['ctx'][key]:.12g}; you gave {item['input']:.12g}."
    text = item["msg"].removeprefix("Value error, ").replace("Input should", "This should").rstrip(".")
    shown = "" if item["type"] in {"value_error", "missing"} else f"; you gave {item['input']!r}"
    start = text if "_" in text.split(" ", 1)[0] else f"{text[:1].upper()}{text[1:]}"
    return f"{start}{shown}."


def in_words(sentence: str, labels: Mapping[str, str]) -> str:
    """The sentence with settings called by their labels; a plain word is a setting's name only before "is"."""

    def label(found: re.Match[str]) -> str:
        name = found[0]
        return f"“{labels[name]}”" if name in labels else name

    return re.sub(r"\b[a-z]\w*_\w+\b|\b[a-z]+(?= is [\d.-]+)", label, sentence)


def _keep(out: dict[str, Any], values: Mapping[str, Any], path: list[str]) -> None:
    """Copies the value at `path`, when there is one."""
    name, *rest = path
    if name not in values:
        return
    if not rest:
        out[name] = values[name]
    elif isinstance(values[name], Mapping):
        _keep(out.setdefault(name, {}), values[name], rest)


def form_field(info: FieldInfo, *, initial: Any, choices: list[tuple[str, str]] | None, name: str) -> forms.Field:
    """The form field of one setting."""
    kind, optional = _plain(info.annotation)
    common: dict[str, Any] = {
        "label": label_of(name),
        "help_text": help_of(info),
        "initial": initial,
    }
    common["required"] = info.is_required() and not optional
    if choices is not None:
        return forms.ChoiceField(choices=choices, **{**common, "required": True})
    if get_origin(kind) is Literal:
        options = get_args(kind)
        coerce: Callable[[Any], Any] = type(options[0])
        made: forms.Field = forms.TypedChoiceField(
            choices=[(o, str(o).replace("_", " ")) for o in options], coerce=coerce, **{**common, "required": True}
        )
    elif kind is bool:
        made = forms.BooleanField(**{**common, "required": False})
    elif kind is int:
        made = forms.IntegerField(widget=_number(info, step="1"), **common)
    elif kind is float:
        made = forms.FloatField(widget=_number(info), **common)
    elif kind is str:
        made = forms.CharField(max_length=2000, strip=False, **common)
    elif get_origin(kind) is list and get_args(kind)[0] in {int, float}:
        made = Numbers(number=get_args(kind)[0], **{**common, "required": False})
    else:
        made = JSONText(**{**common, "required": False})
    made.empty_is_value = optional or kind is str  # type: ignore[attr-defined]
    return made


def help_of(info: FieldInfo) -> str:
    """The docstring of a setting in one line, with other settings called by their labels."""
    return re.sub(r"`([a-z_]+)`", lambda found: f"“{label_of(found[1])}”", " ".join((info.description or "").split()))


def label_of(name: str) -> str:
    """`num_problems_during` → "Problems during"; `adamw_lr` stays readable."""
    text = name.removeprefix("num_").removeprefix("n_").replace("_", " ")
    text = " ".join(ACRONYMS.get(word, word) for word in text.split())
    return text[:1].upper() + text[1:]


ACRONYMS = {
    "lr": "learning rate",
    "kl": "KL",
    "zero": "ZeRO",
    "adamw": "AdamW",
    "mtp": "MTP",
    "aux": "auxiliary",
    "tok": "token",
    "grpo": "GRPO",
    "gspo": "GSPO",
    "kv": "KV",
    "qk": "QK",
    "q": "Q",
    "v": "V",
    "lora": "LoRA",
    "rms": "RMS",
    "rope": "RoPE",
    "moe": "MoE",
    "topk": "top-k",
    "mlp": "MLP",
}


def _model_of(annotation: Any) -> type[BaseModel] | None:
    kind, _optional = _plain(annotation)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _plain(annotation: Any) -> tuple[Any, bool]:
    """The type without None, and whether None was allowed."""
    if get_origin(annotation) in {Union, types.UnionType}:
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return (kinds[0] if len(kinds) == 1 else Any), len(kinds) < len(get_args(annotation))
    return annotation, False


def _number(info: FieldInfo | None = None, step: str = "any") -> forms.NumberInput:
    """A number input; the browser's own limits are only those that hold without an "above"."""
    attributes: dict[str, Any] = {"step": step}
    for rule in info.metadata if info else []:
        for key, attribute in (("ge", "min"), ("le", "max")):
            if (limit := getattr(rule, key, None)) is not None:
                attributes[attribute] = limit
    return forms.NumberInput(attrs=attributes)
