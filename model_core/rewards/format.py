"""Format: one closed thinking part at the beginning, then an answer.

Source: DeepSeek-R1 (arXiv 2501.12948), section 2.2.2, format reward. Ours does not ask for `<answer>` tags; where there are
any, they must be around the whole answer. The opening tag is asked for: our template does not write it (`model_core.thinking`).
"""

from __future__ import annotations

import re

from model_core.config.base import StrictModel
from model_core.registry import registered
from model_core.rewards._types import Sample, Score

_TAGS = re.compile("</?(?:think|answer)>")
_ALLOWED = frozenset(
    ("<think>", "</think>", *answer) for answer in ((), ("<answer>", "</answer>"))
)


@registered
class Format:
    """1 when there is exactly one thinking part and an answer after it."""

    bounds = (0.0, 1.0)

    class Config(StrictModel):
        """No settings."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def __call__(self, sample: Sample) -> Score:
        text = sample.completion
        tags = tuple(_TAGS.findall(text))
        starts = text.lstrip().startswith("<think>")
        good = tags in _ALLOWED and starts and bool(sample.answer) and not _TAGS.search(sample.answer)
        good = good and sample.finish_reason != "length"
        return Score(float(good), "as asked" if good else "not `<think>…</think>answer`")
