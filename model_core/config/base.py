"""The one base of every configuration: frozen, unknown keys refused, docstrings under fields kept.

Strict as JSON is: a number in quotes or `true` is no number, and no number is infinite; an integer is a float. A rule between
fields, which Pydantic knows of the whole model only, is told at one of the fields that its sentence names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from model_core.errors import ConfigError


class StrictModel(BaseModel):
    """Base of all configuration; the docstring under a field becomes its description in forms and schemas."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    @classmethod
    def parse(cls, values: dict[str, Any], *, prefix: str = "") -> Self:
        """Validates `values`. Raises ConfigError whose message has one sentence per field and `field` the first."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            parts = []
            for item in error.errors():
                where = ".".join([*([prefix] if prefix else []), *_place(cls, item)])
                parts.append((where, _sentence(where, item, cls)))
            refused = ConfigError(" ".join(sentence for _where, sentence in parts), field=parts[0][0])
            refused.parts = tuple(parts)
            raise refused from error

    def resolved(self) -> dict[str, Any]:
        """Complete JSON with every default written out."""
        return self.model_dump(mode="json")


def first_named(sentence: str, names: Iterable[str]) -> str | None:
    """The one of `names` that stands first in the sentence as a word of its own."""
    found = {name: match.start() for name in names if (match := re.search(rf"\b{re.escape(name)}\b", sentence))}
    return min(found, key=found.__getitem__, default=None)


def _place(cls: type[BaseModel], item: Any) -> list[str]:
    """Path of the field that is wrong. Of a rule between fields it is the first that the rule's sentence names and that was
    given another value than its default; the first named when none was."""
    path = [str(part) for part in item["loc"]]
    model = _model_at(cls, path) if item["type"] == "value_error" else None
    if model is None:
        return path
    given = item["input"] if isinstance(item["input"], Mapping) else {}
    own = model.model_fields
    changed = [name for name, info in own.items() if name in given and given[name] != info.get_default(call_default_factory=True)]
    name = first_named(item["msg"], changed) or first_named(item["msg"], own)
    return [*path, name] if name else path


def _model_at(cls: type[BaseModel], path: Sequence[str]) -> type[BaseModel] | None:
    """The model at `path` inside `cls`; None where something else stands."""
    for name in path:
        info = cls.model_fields.get(name)
        kinds = (info.annotation, *get_args(info.annotation)) if info else ()
        found = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if found is None:
            return None
        cls = found
    return cls


def _sentence(where: str, item: Any, cls: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        known = ", ".join(sorted(cls.model_fields)) if len(item["loc"]) == 1 else ""
        return f"{where}: there is no such setting." + (f" Known here: {known}." if known else "")
    if item["type"] == "value_error" and isinstance(item["input"], Mapping):
        return f"{where}: {item['msg'].removeprefix('Value error, ').rstrip('.')}."
    return f"{where}: {item['msg']}, but it is {item['input']!r}."
