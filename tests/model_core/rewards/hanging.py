"""A reward that does what it is told to: answer, never return, crash, print, or say something that is no score."""

from __future__ import annotations

import os
import time

from model_core.config.base import StrictModel
from model_core.registry import registered
from model_core.rewards._types import Sample, Score


@registered
class Hanging:
    bounds = (0.0, 1.0)

    class Config(StrictModel):
        deadline_seconds: float = 0.5

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def may_hang(self, sample: Sample) -> bool:
        return sample.completion != "here"

    def __call__(self, sample: Sample) -> Score:
        if sample.completion == "hang":
            time.sleep(3600)
        if sample.completion == "crash":
            os._exit(7)
        print("a reward may print")
        return Score(0.5, f"{sample.completion} {os.getpid()}")
