"""The process that runs math-verify: a line of JSON [expected, given] in, one of "same", "different", "unreadable" out.

Run as a script by `verifier`, which ends it when it is late; it says "ready" when math-verify is loaded. Reading and
comparing can take for ever or eat all memory (`9^{9^{9}}`), which is why it is a process of its own with a limit.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from functools import lru_cache
from typing import Any

from math_verify import parse, verify
from math_verify.parser import LatexExtractionConfig

MAX_MEMORY_BYTES = 4 << 30
_LATEX = (LatexExtractionConfig(boxed_match_priority=-1),)


@lru_cache(maxsize=4096)
def read(latex: str) -> list[Any]:
    """What math-verify reads; empty when it cannot."""
    return list(parse(f"${latex}$", extraction_config=_LATEX, parsing_timeout=None, fallback_mode="no_fallback"))


def judge(expected: str, given: str) -> str:
    """Whether both mean the same, whichever is the expected one."""
    gold, other = read(expected), read(given)
    if not gold:
        return "unreadable"
    same = bool(other) and all(
        verify(first, second, timeout_seconds=None, allow_set_relation_comp=True)
        for first, second in ((gold, other), (other, gold))
    )
    return "same" if same else "different"


def main() -> None:
    """Answers until the input ends, which it does when the parent is gone."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    say("ready")
    for line in sys.stdin:
        say(judge(*json.loads(line)))


def say(word: str) -> None:
    """One line to the parent."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
