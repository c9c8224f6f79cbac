"""Format: one closed thinking part, then an answer.

Source: DeepSeek-R1 (arXiv 2501.12948), section 2.2.2, format reward. Ours does not ask for an opening tag, because the
template may have written it.
"""

from __future__ import annotations

from model_core.config.base import StrictModel
from model_core.registry import registered
from model_core.rewards._types import Sample, Score


@registered
class Format:
    """1 when there is exactly one thinking part and an answer after it."""

    bounds = (0.0, 1.0)

    class Config(StrictModel):
        """No settings."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def __call__(self, sample: Sample) -> Score:
        closed = sample.completion.count("</think>") == 1 and sample.completion.count("<think>") <= 1
        good = closed and bool(sample.answer) and sample.finish_reason != "length"
        return Score(float(good), "as asked" if good else "not `<think>…</think>answer`")
