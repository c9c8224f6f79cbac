"""A conversation of {"role", "content"} as a prompt and the answer to it."""

from __future__ import annotations

from model_core.sources._bad import BadRow

ROLES = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant"}
END_THINK = "</think>"


def turns(messages: object, number: int) -> tuple[str, str, int]:
    """(prompt, last answer, number of messages before it). Raises BadRow naming row `number`.

    A single question is the prompt as it is. Of a longer conversation the prompt names who spoke, and earlier answers are
    without their reasoning, as a chat template has them. What comes behind the last answer is left out.
    """
    said = _said(messages, number)
    last = max((place for place, (role, _text) in enumerate(said) if role == "assistant"), default=0)
    if not last:
        raise BadRow(f"Row {number}: no assistant answers in the conversation.", reason="no answer in the chat", excerpt=messages)
    before, (_role, completion) = said[:last], said[last]
    if len(before) == 1:
        return before[0][1], completion, 1
    parts = [f"{ROLES[role]}: {text.rpartition(END_THINK)[2].strip() if role == 'assistant' else text}" for role, text in before]
    return "\n\n".join(parts), completion, len(before)


def _said(messages: object, number: int) -> list[tuple[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise BadRow(f"Row {number} has no list of messages.", reason="no list of messages", excerpt=messages)
    said = []
    for message in messages:
        role, text = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in ROLES or not isinstance(text, str) or not text.strip():
            wanted = f"a role ({', '.join(ROLES)}) and text as content"
            raise BadRow(f"Row {number}: a message has {wanted}; here is {message!r:.80}.", reason="not a message", excerpt=message)
        said.append((role, text))
    return said
