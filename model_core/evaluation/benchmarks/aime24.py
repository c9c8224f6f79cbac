"""AIME 2024: 30 competition problems whose answers are whole numbers from 000 to 999; 64 samples, because 30 are few.

Source: American Invitational Mathematics Examination 2024, I and II; facts, for evaluation. Prompt: the usage
recommendation of DeepSeek-R1; sampling and cons@64: arXiv 2501.12948, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from model_core.evaluation.benchmarks._types import Benchmark, Problem, Reference, SamplingConfig, text_of
from model_core.evaluation.extraction import final_number
from model_core.registry import registered

_PAPER = "DeepSeek-R1, arXiv 2501.12948"


@registered
class Aime24(Benchmark):
    """Whole numbers; a leading zero changes nothing."""

    title = "AIME 2024"
    licence = "facts, for evaluation"
    source = "American Invitational Mathematics Examination 2024, 30 rows"
    references = (
        Reference("DeepSeek-R1", "pass@1", 79.8, _PAPER),
        Reference("DeepSeek-R1-Zero", "pass@1", 71.0, _PAPER),
        Reference("DeepSeek-R1-Zero", "cons@64", 86.7, _PAPER),
    )

    class Config(SamplingConfig):
        """The pinned settings."""

        num_samples: int = Field(64, ge=1, le=1024)
        """Completions of each problem; pass@1 is the mean over them, cons@64 their majority."""

    def problem(self, number: int, row: Mapping[str, Any]) -> Problem:
        """Problem and its number."""
        return Problem(number, self.ask(text_of(row, "problem", number)), text_of(row, "answer", number).strip())

    def answer(self, problem: Problem, completion: str) -> str | None:
        """A number wherever a mark's text holds one."""
        return final_number(completion)
