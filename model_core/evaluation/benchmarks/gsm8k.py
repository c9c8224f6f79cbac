"""GSM8K: 1,319 grade-school word problems; the expected answer stands after `####` in the row's worked solution.

Source: Cobbe et al., Training Verifiers to Solve Math Word Problems (arXiv 2110.14168), MIT licence. Prompt: the usage
recommendation of DeepSeek-R1; sampling: arXiv 2501.12948, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_core.errors import DataError
from model_core.evaluation.answers import number_of
from model_core.evaluation.benchmarks._types import Benchmark, Problem, Reference, SamplingConfig, text_of
from model_core.evaluation.extraction import final_number
from model_core.registry import registered

_ARTICLE = "“How DeepSeek-R1 Was Built”, as the article states"


@registered
class Gsm8K(Benchmark):
    """Whole numbers, nearly all."""

    title = "GSM8K"
    licence = "MIT"
    source = "arXiv 2110.14168, test split, 1,319 rows"
    references = (
        Reference("DeepSeek-R1", "pass@1", 82.7, _ARTICLE),
        Reference("GPT-4", "pass@1", 85.5, _ARTICLE),
    )

    class Config(SamplingConfig):
        """The pinned settings."""

    def problem(self, number: int, row: Mapping[str, Any]) -> Problem:
        """Question and the number after `####`."""
        _solution, mark, expected = text_of(row, "answer", number).rpartition("####")
        if not mark or number_of(expected) is None:
            raise DataError(f"Row {number}: the answer must end with “#### NUMBER”; it ends with {expected[-40:]!r}.", field="data")
        return Problem(number, self.ask(text_of(row, "question", number)), expected.strip())

    def answer(self, problem: Problem, completion: str) -> str | None:
        """A number wherever a mark's text holds one."""
        return final_number(completion)
