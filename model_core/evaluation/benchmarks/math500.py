"""MATH-500: 500 competition problems whose answers are LaTeX; equal mathematics counts, however it is written.

Source: Lightman et al., Let's Verify Step by Step (arXiv 2305.20050), MIT licence, after Hendrycks et al. (arXiv
2103.03874). Prompt: the usage recommendation of DeepSeek-R1; sampling: arXiv 2501.12948, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_core.evaluation.benchmarks._types import Benchmark, Problem, Reference, SamplingConfig, text_of
from model_core.registry import registered

_ARTICLE = "“How DeepSeek-R1 Was Built”, as the article states"
_PAPER = "DeepSeek-R1, arXiv 2501.12948"


@registered
class Math500(Benchmark):
    """LaTeX answers, compared by math-verify where plain reading does not decide."""

    title = "MATH-500"
    licence = "MIT"
    source = "arXiv 2305.20050, 500 rows of the MATH test split"
    references = (
        Reference("DeepSeek-R1", "pass@1", 97.3, _ARTICLE),
        Reference("GPT-4", "pass@1", 98.2, _ARTICLE),
        Reference("DeepSeek-R1", "pass@1", 97.3, _PAPER),
        Reference("DeepSeek-R1-Distill-Qwen-1.5B", "pass@1", 83.9, _PAPER),
        Reference("DeepSeek-R1-Distill-Qwen-7B", "pass@1", 92.8, _PAPER),
        Reference("DeepSeek-R1-Distill-Qwen-14B", "pass@1", 93.9, _PAPER),
        Reference("DeepSeek-R1-Distill-Qwen-32B", "pass@1", 94.3, _PAPER),
        Reference("DeepSeek-R1-Distill-Llama-8B", "pass@1", 89.1, _PAPER),
        Reference("DeepSeek-R1-Distill-Llama-70B", "pass@1", 94.5, _PAPER),
    )

    class Config(SamplingConfig):
        """The pinned settings."""

    def problem(self, number: int, row: Mapping[str, Any]) -> Problem:
        """Problem and its LaTeX answer."""
        return Problem(number, self.ask(text_of(row, "problem", number)), text_of(row, "answer", number).strip())
