"""Code: does the program in the answer pass the row's checks?

Source: DeepSeek-R1 (arXiv 2501.12948), section 2.2.2: programs are judged by running predefined test cases. Ours runs
them in `_sandbox`, in the last Python block of the answer. The checks are Python lines in the row's `meta["tests"]`.
"""

from __future__ import annotations

import re

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.registry import registered
from model_core.rewards._sandbox import run_program
from model_core.rewards._types import Sample, Score

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)


@registered
class Code:
    """1 when every check passes, 0 otherwise; unscored for a row without checks."""

    bounds = (0.0, 1.0)
    waits = True
    decides_correct = True

    class Config(StrictModel):
        """What a program may use."""

        deadline_seconds: float = Field(5.0, gt=0, le=600)
        """Seconds until the program is ended; it is then worth 0."""
        memory_mb: int = Field(512, ge=32)
        """Most memory of the program, in MiB."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def __call__(self, sample: Sample) -> Score:
        checks = sample.meta.get("tests")
        lines = [checks] if isinstance(checks, str) else checks
        if not lines or not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            return Score.unscored("the row has no checks: its meta needs “tests”, a list of Python lines")
        programs = _BLOCK.findall(sample.answer)
        if not programs:
            return Score(0.0, "no Python block in the answer")
        config = self.config
        ran = run_program(
            programs[-1], "\n".join(lines), deadline_seconds=config.deadline_seconds, memory_mb=config.memory_mb)
        if ran.passed is None:
            return Score.unscored(ran.detail)
        return Score(float(ran.passed), ran.detail)
