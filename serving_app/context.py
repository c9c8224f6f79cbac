"""What of a conversation a model is told: the turns of one branch, without thinking and without what was refused."""

from __future__ import annotations

from collections.abc import Sequence

from serving_app.models import Message
from serving_app.states import GenerationState


def context_of(branch: Sequence[Message]) -> list[dict[str, str]]:
    """The turns from the first on; a question whose answer failed without a word is left out with that answer.

    A prompt that is too long would else be sent again with every later message, and refused each time.
    """
    refused = [m for m in branch if m.state == GenerationState.FAILED and not m.content]
    left_out = {m.pk for m in refused} | {m.parent_id for m in refused}
    return [{"role": m.role, "content": m.content} for m in branch if m.pk not in left_out]
