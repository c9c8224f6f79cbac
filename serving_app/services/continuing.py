"""Going on with an answer: from where it was cut, or from another token at one of its places."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction

from model_core.errors import ConfigError
from model_core.serving.reasoning import CLOSE, OPEN
from model_core.thinking import split
from r1platform.lib.transitions import IllegalTransition
from serving_app.gateway.limits import Slot
from serving_app.models import Message
from serving_app.services.conversations import answer_queue
from serving_app.states import GENERATION_ENDS


@transaction.atomic
def message_continue(
    *, message: Message, user: User, token: int | None = None, choice: int | None = None, slots: list[Slot] | None = None
) -> Message:
    """Another answer beside this one that begins as it does: whole, or up to place `token` with the likeliest `choice` there.

    Raises ConfigError for a place or a choice that is not there, IllegalTransition while the answer is being written,
    EngineError when its model cannot answer now.
    """
    assert message.conversation.user_id == user.pk, "doors let only the owner through"
    if message.role != "assistant":
        raise ConfigError("Only answers go on.", field="message")
    if message.state not in GENERATION_ENDS:
        raise IllegalTransition("Answer", message.pk, message.state, "continued")
    prefix = begun_text(message) if token is None else _with_another(message, token, choice or 0)
    if not prefix.strip():
        raise ConfigError("Nothing was answered that could go on. Answer again instead.", field="message")
    if "\ufffd" in prefix:
        raise ConfigError("This place is within a character of several tokens. Choose one before or after it.", field="token")
    thought, said = split(prefix)
    return answer_queue(beside=message, slots=slots, prefix=prefix, reasoning=thought, content=said)


def begun_text(message: Message) -> str:
    """An answer as the model wrote it so far; thinking that had not ended stays open."""
    if not message.reasoning:
        return message.content
    return f"{OPEN}{message.reasoning}" + (f"{CLOSE}{message.content}" if message.content else "")


def _with_another(message: Message, token: int, choice: int) -> str:
    """The prefix and the tokens before the place, then the one that was chosen of the likeliest there."""
    tokens = message.tokens or []
    if not 0 <= token < len(tokens):
        raise ConfigError(f"The answer has {len(tokens)} kept tokens; there is no place {token}.", field="token")
    _text, _logprob, likeliest = tokens[token]
    if not 0 <= choice < len(likeliest):
        raise ConfigError(f"There are {len(likeliest)} alternatives at this place; there is no {choice}.", field="choice")
    return message.prefix + "".join(text for text, *_ in tokens[:token]) + str(likeliest[choice][0])
