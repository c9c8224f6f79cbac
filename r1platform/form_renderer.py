"""Form controls drawn without templates, character for character as Django's own templates draw them.

A page of settings has over a hundred controls, and each of Django's takes several nested templates: that was most of such a
page's time. Controls that are not here are drawn by their template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from django.forms.renderers import DjangoTemplates
from django.utils.safestring import SafeData, SafeString

Control = Mapping[str, Any]
"""What a widget says about itself: name, value, attributes, and the options of a select."""


class FormRenderer(DjangoTemplates):
    """Django's renderer with the common controls drawn here."""

    def render(self, template_name: str, context: Any, request: Any = None) -> SafeString:
        """Markup of a control or of a whole form."""
        draw = DRAWN.get(template_name)
        return SafeString(draw(context["widget"]) if draw else super().render(template_name, context, request))


def _input(control: Control) -> str:
    value = "" if control["value"] is None else f' value="{_text(control["value"])}"'
    return f'<input type="{_text(control["type"])}" name="{_text(control["name"])}"{value}{_attributes(control)}>'


def _textarea(control: Control) -> str:
    text = _text(control["value"]) if control["value"] else ""
    return f'<textarea name="{_text(control["name"])}"{_attributes(control)}>\n{text}</textarea>'


def _select(control: Control) -> str:
    parts = [f'<select name="{_text(control["name"])}"{_attributes(control)}>']
    for title, options, _number in control["optgroups"]:
        parts += [f'\n  <optgroup label="{_text(title)}">'] if title else []
        parts += [f"\n  {_option(option)}\n" for option in options]
        parts += ["\n  </optgroup>"] if title else []
    return "".join([*parts, "\n</select>"])


def _option(option: Control) -> str:
    return f'<option value="{_text(option["value"])}"{_attributes(option)}>{_text(option["label"])}</option>'


def _checkboxes(control: Control) -> str:
    shown = ((name, control["attrs"].get(name)) for name in ("id", "class"))
    parts = ["<div", *(f' {name}="{_text(value)}"' for name, value in shown if value), ">"]
    for title, options, _number in control["optgroups"]:
        parts += [f"\n  <div><label>{_text(title)}</label>"] if title else []
        parts += [f"<div>\n    {_checkbox(option)}</div>" for option in options]
        parts += ["\n  </div>"] if title else []
    return "".join([*parts, "\n</div>"])


def _checkbox(option: Control) -> str:
    name = option["attrs"].get("id")
    aim = f' for="{_text(name)}"' if name else ""
    return f"<label{aim}>{_input(option)}\n {_text(option['label'])}</label>\n\n"


def _attributes(control: Control) -> str:
    shown = ((name, value) for name, value in control["attrs"].items() if value is not False)
    return "".join(f" {_text(name)}" if value is True else f' {_text(name)}="{_text(value)}"' for name, value in shown)


def _text(value: Any) -> str:
    text = str(value)
    return text if isinstance(text, SafeData) else escape(text)


INPUTS = ("checkbox", "date", "email", "hidden", "number", "password", "text", "url")
DRAWN: dict[str, Callable[[Control], str]] = {
    **{f"django/forms/widgets/{kind}.html": _input for kind in INPUTS},
    "django/forms/widgets/checkbox_select.html": _checkboxes,
    "django/forms/widgets/select.html": _select,
    "django/forms/widgets/textarea.html": _textarea,
}
"""Template → what draws the same."""
