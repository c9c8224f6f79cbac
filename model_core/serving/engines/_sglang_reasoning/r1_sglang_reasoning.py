"""SGLang plugin: the reasoning parser “r1”, which cuts answers by the same code as the built-in engine.

SGLang's own parser for DeepSeek-R1 takes every answer for thinking until it is closed. Registered under the entry
point group `sglang.srt.plugins`; runs in SGLang's environment, not in ours.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

RULE = Path(__file__).resolve().parents[2] / "reasoning.py"


def register() -> None:
    """Adds the parser; called by SGLang in each of its processes, before it reads its arguments."""
    from sglang.srt.parser.reasoning_parser import ReasoningParser

    ReasoningParser.DetectorMap["r1"] = detector()


def detector() -> Any:
    """The class that SGLang makes one of for every answer."""
    from sglang.srt.parser.reasoning_parser import BaseReasoningFormatDetector, StreamingParseResult

    rule = _rule()

    class R1Detector(BaseReasoningFormatDetector):  # type: ignore[misc]
        def __init__(self, stream_reasoning: bool = True, force_reasoning: bool = False, **_options: Any) -> None:
            super().__init__(
                rule.OPEN, rule.CLOSE, force_reasoning=force_reasoning, stream_reasoning=stream_reasoning,
                reasoning_default=None,
            )  # fmt: skip
            self.rule = rule.ReasoningSplitter(thinking=force_reasoning)

        def detect_and_parse(self, text: str) -> Any:
            return self._cut(text, last=True)

        def parse_streaming_increment(self, new_text: str) -> Any:
            return self._cut(new_text, last=False)

        def finish(self) -> Any:
            return self._cut("", last=True)

        def _cut(self, text: str, *, last: bool) -> Any:
            reasoning, content = self.rule.feed(text, last=last)
            return StreamingParseResult(normal_text=content, reasoning_text=reasoning)

    return R1Detector


def _rule() -> Any:
    """Our module, read from its file: the rest of our package is not in SGLang's environment."""
    spec = importlib.util.spec_from_file_location("r1_reasoning", RULE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
