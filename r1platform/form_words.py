"""What a form says of a value that it cannot take: the field's name, what is allowed and what was given, in our words.

A sentence that a field states itself stays.
"""

from __future__ import annotations

from typing import Any

from django import forms


class WordedForm(forms.Form):
    """A form whose stock sentences are ours."""

    def full_clean(self) -> None:
        """Validates; the sentences are put in only where something was sent."""
        if self.is_bound:
            for name, field in self.fields.items():
                say(field, str(self[name].label))
        super().full_clean()


def say(field: forms.Field, label: str) -> None:
    """Replaces the sentences that Django wrote."""
    stock: dict[str, Any] = {}
    for kind in reversed(type(field).__mro__):
        stock |= getattr(kind, "default_error_messages", {})
    for code, sentence in _sentences(field, label).items():
        if field.error_messages.get(code) == stock.get(code):
            field.error_messages[code] = sentence


def _sentences(field: forms.Field, label: str) -> dict[str, str]:
    name, allowed = f"“{label}”", _allowed(field)
    return {
        "required": f"{name} is empty. Give it {allowed}.",
        "invalid": f"{name} takes {allowed}.",
        "invalid_choice": f"{name} has no choice “%(value)s”. Choose one that it offers.",
        "invalid_pk_value": f"{name} has no choice “%(pk)s”. Choose among those that it offers.",
        "invalid_list": f"{name} takes some of what it offers.",
        "min_value": f"{name} is at least %(limit_value)s; you gave %(show_value)s.",
        "max_value": f"{name} is at most %(limit_value)s; you gave %(show_value)s.",
        "max_length": f"{name} has at most %(limit_value)d characters; you gave %(show_value)d.",
        "null_characters_not_allowed": f"{name} holds a zero byte, which no text has. Take it out.",
    }  # fmt: skip


def _allowed(field: forms.Field) -> str:
    match field:
        case forms.IntegerField():
            return ("a number" if isinstance(field, forms.FloatField) else "a whole number") + _range(field)
        case forms.SlugField():
            return "letters, digits, - and _, without spaces"
        case forms.FileField():
            return "a file"
        case forms.JSONField():
            return "JSON, such as [1, 2] or {\"name\": 1}"
        case forms.ChoiceField():
            return "one of the choices that it offers"
        case forms.CharField() if field.max_length:
            return f"a text of at most {field.max_length} characters"
        case _:
            return "a value"


def _range(field: forms.IntegerField) -> str:
    low, high = field.min_value, field.max_value
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is None and high is None:
        return ""
    return f" of at least {low}" if low is not None else f" of at most {high}"
