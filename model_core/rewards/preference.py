"""Preference: how much a reward model likes the answer, a model that has learnt from pairs of chosen and rejected answers.

Source: Ouyang et al. (arXiv 2203.02155), section 3.5; DeepSeek-R1 (arXiv 2501.12948), section 2.3.4, which asks such models in
its second reinforcement only, and there late (`from_step` of the reward). Scores have no bounds and no origin: ours is the
sigmoid of the score minus the centre that the reward model's checkpoint holds, so that 0.5 is as good as the mean of the
answers that it learnt from. A text that is too long for the reward model, or a score that is not finite, is unscored.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from model_core.config.base import StrictModel
from model_core.errors import CheckpointError
from model_core.registry import registered
from model_core.rewards._types import Sample, Score

if TYPE_CHECKING:
    from model_core.reward_model.scoring import Scorer


@registered
class Preference:
    """1 for what the reward model likes best, 0 for what it likes least."""

    bounds = (0.0, 1.0)
    required: ClassVar[dict[str, str]] = {"checkpoint": "name the directory of a checkpoint of the phase reward_model"}

    class Config(StrictModel):
        """Which reward model, and what it reads."""

        checkpoint: str = ""
        """Directory of a checkpoint of the phase `reward_model`."""
        reads: Literal["completion", "answer"] = "completion"
        """"completion": reasoning and answer; "answer": what stands after the reasoning, as DeepSeek-R1 judges helpfulness."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._scorer: Scorer | None = None

    def __call__(self, sample: Sample) -> Score:
        return self.score_many([sample])[0]

    def score_many(self, samples: Sequence[Sample]) -> list[Score]:
        """A score for each sample, judged together. Raises CheckpointError at the first call when the model cannot be had."""
        if not self.config.checkpoint:
            return [Score.unscored("no reward model is named")] * len(samples)
        if not samples:
            return []
        scorer = self._loaded()
        read_answer = self.config.reads == "answer"
        found = scorer.scores([(one.prompt, one.answer if read_answer else one.completion) for one in samples])
        return [_score(one, scorer) for one in found]

    def _loaded(self) -> Scorer:
        if self._scorer is None:
            import torch

            from model_core.reward_model.scoring import Scorer

            is_gpu = torch.cuda.is_available()
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if is_gpu else torch.device("cpu")
            try:
                self._scorer = Scorer(self.config.checkpoint, device)
            except CheckpointError as error:
                raise CheckpointError(error.message, field="reward.settings.preference.checkpoint") from error
        return self._scorer


def _score(found: float | None, scorer: Scorer) -> Score:
    if found is None:
        return Score.unscored(f"it is longer than the {scorer.max_tokens} tokens that the reward model reads")
    if not math.isfinite(found):
        return Score.unscored(f"the reward model gives {found}")
    return Score(_sigmoid(found - scorer.centre), f"score {found:.3f}, centre {scorer.centre:.3f}")


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
