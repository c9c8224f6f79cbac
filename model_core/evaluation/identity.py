"""Which extractor and which rules of comparison a result was graded by: in words, and as a hash of their source.

Prompt and sampling stand in a benchmark's settings; how an answer is found is code. Two results with the same hash were
graded alike.
"""

from __future__ import annotations

import hashlib
import inspect
from functools import cache
from pathlib import Path

from model_core.evaluation.benchmarks._types import Benchmark

_RULES = (
    "_math_worker.py", "answers.py", "extraction.py", "latex.py", "verifier.py", "benchmarks/_choices.py", "benchmarks/_types.py",
)  # fmt: skip


@cache
def extractor_of(cls: type[Benchmark]) -> dict[str, str]:
    """{"words": how an answer is found, "sha256": of the code that finds and compares it}."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in (*(folder / name for name in _RULES), Path(inspect.getfile(cls))):
        digest.update(path.read_bytes())
    return {"words": " ".join((cls.answer.__doc__ or "").split()), "sha256": digest.hexdigest()}
