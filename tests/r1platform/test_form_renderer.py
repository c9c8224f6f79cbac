"""Form controls drawn without templates are, character for character, those of Django's own templates."""

from __future__ import annotations

from typing import Any

import pytest
from django import forms
from django.forms.renderers import DjangoTemplates
from django.utils.safestring import mark_safe

from r1platform.form_renderer import DRAWN, FormRenderer

NASTY = "\"'<b>&amp; ü"
CHOICES = [("", "None"), (1, "one"), (NASTY, NASTY), ("Group " + NASTY, [("2", "two"), (3.5, mark_safe("<i>"))])]
ATTRIBUTES = [{}, {"id": NASTY, "required": True, "disabled": False, "min": 0, "step": 0.5, "data-x": NASTY}]
WIDGETS: list[forms.Widget] = [
    forms.TextInput(), forms.NumberInput(), forms.EmailInput(), forms.URLInput(), forms.PasswordInput(render_value=True),
    forms.HiddenInput(), forms.DateInput(), forms.CheckboxInput(), forms.Textarea(), forms.Select(choices=CHOICES),
    forms.SelectMultiple(choices=CHOICES), forms.CheckboxSelectMultiple(choices=CHOICES),
]  # fmt: skip


@pytest.mark.parametrize("widget", WIDGETS, ids=lambda widget: type(widget).__name__)
@pytest.mark.parametrize("value", [None, "", 0, 3.5, True, NASTY, mark_safe("<i>"), ["2", NASTY]], ids=repr)
def test_a_control_is_as_its_template_draws_it(widget: forms.Widget, value: Any) -> None:
    for attributes in ATTRIBUTES:
        ours, theirs = (widget.render(NASTY, value, attributes, renderer()) for renderer in (FormRenderer, DjangoTemplates))
        assert ours == theirs and hasattr(ours, "__html__")


def test_the_common_controls_are_drawn_here() -> None:
    assert {widget.template_name for widget in WIDGETS} <= DRAWN.keys()
