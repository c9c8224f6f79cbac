"""The one base of every configuration: frozen, unknown keys refused, docstrings under fields kept.

Strict as JSON is: a number in quotes or `true` is no number, and no number is infinite; an integer is a float.
"""

from __future__ import annotations

from typing import Any, Self

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
            first, messages = "", []
            for item in error.errors():
                where = ".".join([*([prefix] if prefix else []), *(str(part) for part in item["loc"])])
                first = first or where
                messages.append(_sentence(where, item, cls))
            raise ConfigError(" ".join(messages), field=first) from error

    def resolved(self) -> dict[str, Any]:
        """Complete JSON with every default written out."""
        return self.model_dump(mode="json")


def _sentence(where: str, item: Any, cls: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        known = ", ".join(sorted(cls.model_fields)) if len(item["loc"]) == 1 else ""
        return f"{where}: there is no such setting." + (f" Known here: {known}." if known else "")
    return f"{where}: {item['msg']}, but it is {item['input']!r}."
