"""What of a conversation a model is told: the turns of one branch, without thinking and without what was refused."""

from __future__ import annotations

from collections.abc import Sequence

from serving_app.models import Message
from serving_app.states import GenerationState

Turns = list[dict[str, str]]
"""Each {"role", "content"}."""


def context_of(branch: Sequence[Message]) -> Turns:
    """The turns from the first on; a question whose answer failed without a word is left out with that answer.

    A prompt that is too long would else be sent again with every later message, and refused each time.
    """
    refused = [m for m in branch if m.state == GenerationState.FAILED and not m.content]
    left_out = {m.pk for m in refused} | {m.parent_id for m in refused}
    return [{"role": m.role, "content": m.content} for m in branch if m.pk not in left_out]


def turns_before(message: Message) -> Turns:
    """What the writer of an answer is told: the system prompt, then the turns from the root to the question."""
    system = message.conversation.system_prompt
    told = [{"role": "system", "content": system}] if system else []
    earlier = message.conversation.messages.filter(pk__lt=message.pk)
    said = {m.pk: m for m in earlier.only("role", "content", "state", "parent")}
    branch, at = [], message.parent_id
    while at is not None and at in said:
        branch.append(said[at])
        at = said[at].parent_id
    return told + context_of(branch[::-1])
