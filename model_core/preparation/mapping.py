"""The row that a source's row means under a field mapping."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from model_core.config import MappingConfig
from model_core.sources._bad import BadRow
from model_core.sources._chat import turns


def mapped(raw: dict[str, Any], mapping: MappingConfig, number: int) -> dict[str, Any]:
    """{"prompt", "completion", "answer", "task", "meta"} of row `number`, and of a pair of answers "chosen" and "rejected".

    Raises BadRow naming row and field.
    """
    if mapping.messages:
        prompt, completion, _num = turns(_value(raw, mapping.messages, number), number)
        return _row(raw, mapping, number, prompt, completion)
    if mapping.chosen:
        prompt, pair = _pair(raw, mapping, number)
        return {**_row(raw, mapping, number, prompt, _completion(raw, mapping, number)), **pair}
    return _row(raw, mapping, number, _text(raw, mapping.prompt, number), _completion(raw, mapping, number))


def _completion(raw: dict[str, Any], mapping: MappingConfig, number: int) -> str | None:
    return _text(raw, mapping.completion, number) if mapping.completion else None


def _row(raw: dict[str, Any], mapping: MappingConfig, number: int, prompt: str, completion: str | None) -> dict[str, Any]:
    answer = _text(raw, mapping.answer, number) if mapping.answer else None
    reasoning = _text(raw, mapping.reasoning, number) if mapping.reasoning else None
    if answer is None and completion is not None and mapping.answer_pattern:
        answer, completion = _answer_in(completion, mapping.answer_pattern, number)
    if reasoning is not None:
        completion = f"<think>{reasoning}</think>{completion if completion is not None else answer or ''}"
    if completion is not None and answer is not None and "</think>" not in completion:
        completion = f"<think>{completion}</think>{answer}"
    meta = {name: raw[name] for name in mapping.keep if raw.get(name) is not None}
    return {"prompt": prompt, "completion": completion, "answer": answer, "task": "", "meta": meta}


def _answer_in(completion: str, pattern: str, number: int) -> tuple[str, str]:
    """(answer, what stands before the place where it was found)."""
    found = re.search(pattern, completion, re.MULTILINE)
    answer = (found[1] or "").strip() if found else ""
    if found is None or not answer:
        what = "finds nothing" if found is None else "finds a place, but its first group no answer there"
        raise BadRow(f"Row {number}: answer_pattern {pattern!r} {what}.", reason="answer_pattern finds nothing",
                     excerpt=completion, field="mapping.answer_pattern")  # fmt: skip
    return answer, completion[: found.start()].strip()


def _pair(raw: dict[str, Any], mapping: MappingConfig, number: int) -> tuple[str, dict[str, str]]:
    """The prompt and both answers to it."""
    found = {name: _value(raw, getattr(mapping, name), number) for name in ("chosen", "rejected")}
    if any(isinstance(value, list) for value in found.values()):
        told = {name: _told(raw, mapping, value, number) for name, value in found.items()}
        prompts, pair = [prompt for prompt, _answer in told.values()], {name: answer for name, (_prompt, answer) in told.items()}
        if prompts[0] != prompts[1]:
            message = f"Row {number}: chosen and rejected answer different prompts, {prompts[0]!r:.60} and {prompts[1]!r:.60}."
            raise BadRow(message, reason="two prompts", excerpt=raw, field="mapping")
        prompt = prompts[0]
    else:
        prompt, pair = _text(raw, mapping.prompt, number), {name: _text(raw, getattr(mapping, name), number) for name in found}
    if pair["chosen"] == pair["rejected"]:
        same = "chosen and rejected are the same"
        raise BadRow(f"Row {number}: {same} text.", reason=same, excerpt=raw, field="mapping")
    return prompt, pair


def _told(raw: dict[str, Any], mapping: MappingConfig, chat: Any, number: int) -> tuple[str, str]:
    """(prompt, answer) of a chat; one that begins with the answer goes on from what the field of the prompt holds."""
    first = chat[0] if isinstance(chat, list) and chat else None
    if isinstance(first, dict) and first.get("role") == "assistant":
        before = _value(raw, mapping.prompt, number)
        chat = [*(before if isinstance(before, list) else [{"role": "user", "content": before}]), *chat]
    prompt, answer, _num = turns(chat, number)
    return prompt, answer


def _value(raw: dict[str, Any], name: str, number: int) -> Any:
    value = raw.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        message = f"Row {number} has no “{name}”; it has {', '.join(map(str, raw)) or 'no field'}."
        raise BadRow(message, reason=f"no “{name}”", excerpt=raw, field="mapping")
    return value


def _text(raw: dict[str, Any], name: str, number: int) -> str:
    """Text as it is, a number as its digits."""
    value = _value(raw, name, number)
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    message = f"Row {number}: “{name}” is a {type(value).__name__}, not text."
    raise BadRow(message, reason=f"“{name}” is no text", excerpt=raw, field="mapping")
