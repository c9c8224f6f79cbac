"""Language consistency: the share of the reasoning's words that are in the wanted language.

Source: DeepSeek-R1 (arXiv 2501.12948), section 2.3.2: “the proportion of target language words in the CoT”. The paper does
not say how a word's language is told. Ours looks at its script: it tells English from Chinese or Russian, and not English
from French; the filter `language` tells those apart in data. Formulas and numbers are no words.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.registry import registered
from model_core.rewards._scripts import SYMBOLS, script_of
from model_core.rewards._types import Sample, Score

_SCRIPTS = {
    "latin": "LATIN", "chinese_japanese": "CJK", "cyrillic": "CYRILLIC", "arabic": "ARABIC", "greek": "GREEK", "hebrew": "HEBREW",
    "devanagari": "DEVANAGARI", "korean": "HANGUL", "thai": "THAI",
}  # fmt: skip
_TEX = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]+")


@registered
class LanguageConsistency:
    """1 when every word is in the wanted script, 0 when none is or nothing was thought; 1 for a reasoning without words."""

    bounds = (0.0, 1.0)

    class Config(StrictModel):
        """The wanted language, by its script."""

        script: Literal[
            "latin", "chinese_japanese", "cyrillic", "arabic", "greek", "hebrew", "devanagari", "korean", "thai"
        ] = Field("latin")
        """Script of the language that the model is to think in; English, German or Spanish are "latin"."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def __call__(self, sample: Sample) -> Score:
        wanted = _SCRIPTS[self.config.script]
        words = _words(sample.reasoning, wanted)
        if not sample.reasoning.strip():
            return Score(0.0, "no reasoning")
        if not words:
            return Score(1.0, "no word in the reasoning")
        num_right = sum(script == wanted for script in words)
        return Score(num_right / len(words), f"{num_right} of {len(words)} words are in the wanted script")


def _words(text: str, wanted: str) -> list[str]:
    """The script of each word; a Chinese or Japanese character is a word, and a single symbol such as π is none."""
    found = []
    for word in _WORD.findall(_TEX.sub(" ", text)):
        scripts = [script_of(letter) for letter in word]
        found += ["CJK"] * scripts.count("CJK")
        rest = [script for script in scripts if script != "CJK" and (script == wanted or script not in SYMBOLS)]
        found += rest[:1]
    return found
