"""In which script letters are written, told by their Unicode names. Imports nothing."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

SYMBOLS = frozenset({"GREEK", "MATHEMATICAL", "DOUBLE-STRUCK", "SCRIPT", "MICRO"})
"""Scripts whose letters stand for quantities in every language; a Greek text is told by nothing else, though."""


def scripts_of(text: str) -> Counter[str]:
    """How many letters of the text are of which script."""
    return Counter(script_of(letter) for letter in text if letter.isalpha())


def foreign_fraction(text: str) -> float:
    """Share of the letters that are not of the text's commonest script; 0 without letters. Greek letters do not count."""
    scripts = {script: num for script, num in scripts_of(text).items() if script not in SYMBOLS}
    total = sum(scripts.values())
    return 1.0 - max(scripts.values()) / total if total else 0.0


@lru_cache(maxsize=4096)
def script_of(letter: str) -> str:
    """The first word of the letter's Unicode name; kana counts as Chinese characters do, for Japanese mixes them."""
    script = unicodedata.name(letter, "UNKNOWN").split(" ", 1)[0]
    return "CJK" if script in {"HIRAGANA", "KATAKANA"} else script
