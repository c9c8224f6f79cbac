"""Drops rows that share a long sequence of words with a question of a benchmark.

Source: DeepSeekMath (arXiv 2402.03300), section 2.1.1, whose rule DeepSeek-R1 follows: a sequence of 10 words in common; a
benchmark text of 3 to 9 words must occur as a whole. The files of the benchmarks are given by whoever prepares, never by a
configuration, which may come from outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.errors import ConfigError, DataError
from model_core.filters._judging import Drop, TextName, text_of
from model_core.filters._shingles import Shingles, words_of
from model_core.registry import registered
from model_core.sources import SOURCES, format_of

FIELDS = ("question", "problem", "prompt", "text")
"""Fields that hold a benchmark's question; the first that a row has."""


@registered
class Contamination:
    """Compares with every question of the benchmarks; 64-bit hashes, so that a chance meeting is as good as impossible."""

    needs_benchmarks = True

    class Config(StrictModel):
        """With what and how."""

        text: TextName = "all"
        """Which text is looked at: the prompt, the completion, or both together."""
        benchmarks: list[str] = Field(default_factory=list)
        """Names of benchmarks; empty: all whose questions are at hand."""
        num_words: int = Field(10, ge=3, le=50)
        """Words in common from which a row is a leak."""
        min_words: int = Field(3, ge=1, le=50)
        """Shorter benchmark texts are not looked for: they occur everywhere."""

    def __init__(self, config: Config | None = None, benchmarks: Mapping[str, Path] | None = None) -> None:
        self.config = config or self.Config()
        self._files = dict(benchmarks or {})
        self._shingles = Shingles()
        self._known: dict[int, dict[int, str]] | None = None

    def why_dropped(self, row: dict[str, Any]) -> Drop | None:
        """The rule and a sentence, or None to keep the row. Raises ConfigError when there is nothing to compare with."""
        if self._known is None:
            self._known = self._read()
        words = words_of(text_of(row, self.config.text))
        for num, known in self._known.items():
            if len(words) < num:
                continue
            numbers = self._shingles.of(words, num).tolist()
            if known.keys().isdisjoint(numbers):
                continue
            place = next(place for place, number in enumerate(numbers) if number in known)
            name, said = known[numbers[place]], " ".join(words[place : place + num])
            return Drop(f"in {name.partition(',')[0]}", f"{num} words in a row are those of {name}: “{said[:200]}”")
        return None

    def _read(self) -> dict[int, dict[int, str]]:
        """Number of words → number of the sequence → where it stands."""
        known: dict[int, dict[int, str]] = {}
        for name in self._wanted():
            for number, text in enumerate(questions(self._files[name]), start=1):
                words = words_of(text)
                num = min(len(words), self.config.num_words)
                if num >= min(self.config.min_words, self.config.num_words):
                    found = known.setdefault(num, {})
                    for value in self._shingles.of(words, num).tolist():
                        found.setdefault(value, f"{name}, question {number}")
        return known

    def _wanted(self) -> list[str]:
        wanted = self.config.benchmarks or sorted(self._files)
        missing = [name for name in wanted if name not in self._files]
        if missing or not wanted:
            there = ", ".join(sorted(self._files)) or "none"
            message = f"The questions of {', '.join(missing) or 'a benchmark'} are not at hand; there are those of: {there}."
            raise ConfigError(f"{message} Give the benchmarks' files to whoever prepares, or leave this filter out.",
                              field="filters.contamination.benchmarks")  # fmt: skip
        return list(wanted)


def questions(path: Path) -> Iterator[str]:
    """The questions in a benchmark's file, in order. Raises DataError at the first row without one."""
    kind = SOURCES.get(format_of(path.name))
    for number, row in enumerate(kind(kind.Config()).rows(path), start=1):
        text = next((row[name] for name in FIELDS if isinstance(row.get(name), str)), None)
        if text is None:
            message = f"Row {number} of “{path.name}” has no question; it is looked for in {', '.join(FIELDS)}."
            raise DataError(message, field="filters.contamination")
        yield text
