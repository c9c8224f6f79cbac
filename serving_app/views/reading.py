"""A judgement as an editor reads it: the messages before, each text with its thinking apart."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.safestring import SafeString, mark_safe

from model_core.thinking import split
from serving_app.models import Judgement
from serving_app.reasons import REASONS
from serving_app.rendering import render


@dataclass(frozen=True)
class Text:
    """One of the two texts."""

    label: str
    model: str
    thought: str
    answer: str

    @property
    def html(self) -> SafeString:
        """The answer rendered; `rendering.render` ends with the allow-list."""
        return mark_safe(render(self.answer))  # noqa: S308


@dataclass(frozen=True)
class Reading:
    """A judgement and its texts."""

    judgement: Judgement
    texts: tuple[Text, ...]

    @property
    def reasons(self) -> list[str]:
        return [REASONS.get(name, name) for name in self.judgement.reasons]


def read_judgement(one: Judgement) -> Reading:
    """The texts that the judgement has, the better one first."""
    found = []
    author = one.user.get_username() if one.user else "a person who left"
    deployment = one.deployment.shown_name if one.deployment else author if one.kind == "edit" else "model deleted"
    other = one.other_deployment.shown_name if one.other_deployment else "model deleted"
    if one.chosen:
        found.append(Text("Better" if one.rejected else "Good", deployment, *split(one.chosen)))
    if one.rejected:
        found.append(Text("Worse" if one.chosen else "Bad", other if one.chosen else deployment, *split(one.rejected)))
    return Reading(one, tuple(found))
