"""The row that a source's row means under a field mapping."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from model_core.config import MappingConfig
from model_core.sources._bad import BadRow
from model_core.sources._chat import turns


def mapped(raw: dict[str, Any], mapping: MappingConfig, number: int) -> dict[str, Any]:
    """{"prompt", "completion", "answer", "task", "meta"} of row `number`. Raises BadRow naming row and field."""
    if mapping.messages:
        prompt, completion, _num = turns(_value(raw, mapping.messages, number), number)
        return _row(raw, mapping, number, prompt, completion)
    prompt = _text(raw, mapping.prompt, number)
    return _row(raw, mapping, number, prompt, _text(raw, mapping.completion, number) if mapping.completion else None)


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
