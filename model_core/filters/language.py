"""Keeps rows in the wanted languages, told by the frequency of byte sequences.

Source: Lui and Baldwin, “langid.py” (ACL 2012), by its successor py3langid. Formulas and numbers tell no language: rows of
little else are kept or dropped as you choose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.errors import ConfigError
from model_core.filters._judging import Drop, TextName, text_of
from model_core.filters._languages import Languages
from model_core.registry import registered


@registered
class Language:
    """Asks for the language of one text of the row."""

    class Config(StrictModel):
        """Which languages, and how sure it must be."""

        text: TextName = "all"
        """Which text is judged: the prompt, the completion, or both together."""
        languages: list[str] = Field(default_factory=lambda: ["en"], min_length=1)
        """Languages that are kept, as ISO 639-1 codes, for example `en` or `de`."""
        min_confidence: float = Field(0.5, ge=0, le=1)
        """Least probability of the language; below it the language is unknown."""
        min_letters: int = Field(20, ge=0)
        """With fewer letters the language is unknown."""
        max_chars: int = Field(1000, ge=1)
        """Characters that are looked at, from the beginning: more are surer and slower."""
        unknown: Literal["keep", "drop"] = "keep"
        """What happens to rows whose language is unknown."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self.noted: Counter[str] = Counter()

    def why_dropped(self, row: dict[str, Any]) -> Drop | None:
        """The rule and a sentence, or None to keep the row. Raises ConfigError for a language that nobody can tell."""
        asked, identifier = self.config, self._identifier()
        text = text_of(row, asked.text)[: asked.max_chars]
        num_letters = sum(map(str.isalpha, text))
        code, confidence = identifier.classify(text) if num_letters >= asked.min_letters else ("", 0.0)
        if confidence < asked.min_confidence:
            if asked.unknown == "drop":
                return Drop("unknown language", f"its language cannot be told from {num_letters} letters ({confidence:.0%} sure)")
            self.noted["unknown language"] += 1
            return None
        if code not in asked.languages:
            return Drop(f"language {code}", f"it is {code} ({confidence:.0%} sure), not {', '.join(asked.languages)}")
        return None

    def why_dropped_each(self, rows: Sequence[dict[str, Any]]) -> list[Drop | None]:
        """`why_dropped` of each row; only those that are not surely kept are asked for one by one."""
        asked, identifier = self.config, self._identifier()
        texts = [text_of(row, asked.text)[: asked.max_chars] for row in rows]
        sure = _many(identifier).surely(texts, asked.languages, asked.min_confidence)
        return [
            None if is_sure and self._has_letters(text) else self.why_dropped(row)
            for row, text, is_sure in zip(rows, texts, sure, strict=True)
        ]

    def _has_letters(self, text: str) -> bool:
        """Whether there are enough letters near the beginning."""
        return sum(map(str.isalpha, text[: 2 * self.config.min_letters])) >= self.config.min_letters

    def _identifier(self) -> Any:
        identifier = _identifier()
        if unknown := set(self.config.languages) - set(identifier.labels):
            message = f"{', '.join(sorted(unknown))} cannot be told; there are {', '.join(sorted(identifier.labels))}."
            raise ConfigError(message, field="filters.language.languages")
        return identifier


@cache
def _many(identifier: Any) -> Languages:
    return Languages(identifier)


@cache
def _identifier() -> Any:
    """The model, read once a process; probabilities sum to one."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
