"""Why an answer is good or bad, in the words that people choose from."""

from __future__ import annotations

from collections.abc import Iterable

from model_core.errors import ConfigError

GOOD: dict[str, str] = {
    "correct": "Correct", "clear": "Clear", "complete": "Complete", "good_reasoning": "Sound reasoning", "good_style": "Good style",
}  # fmt: skip
BAD: dict[str, str] = {
    "wrong": "Wrong", "bad_reasoning": "Unsound reasoning", "ignores_question": "Does not answer the question",
    "too_long": "Too long", "unclear": "Unclear", "bad_format": "Badly formatted", "unsafe": "Unsafe or offensive",
    "wrong_language": "Wrong language",
}  # fmt: skip
REASONS = GOOD | BAD
MAX_COMMENT = 2_000


def reasons_checked(reasons: Iterable[str], value: int) -> list[str]:
    """The reasons once each, in the order of their list. Raises ConfigError for one that does not fit the value."""
    known = GOOD if value > 0 else BAD
    given = set(reasons)
    if unknown := sorted(given - set(known)):
        raise ConfigError(f"“{unknown[0]}” is no reason here; there are {', '.join(known)}.", field="reasons")
    return [name for name in known if name in given]
