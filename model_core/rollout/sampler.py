"""Samples completions in batches: each prompt is prefilled once and shared by its group, rows are refilled when done.

The log-probabilities are those of the sampling distribution, so that the trainer can compare them with its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model_core.errors import ConfigError
from model_core.model import Transformer
from model_core.rollout.batch import Batch, Completion, Wish
from model_core.rollout.sampling import GREEDY_BELOW
from model_core.rollout.speculative import Speculation

MAX_ROWS = 512
"""Rows that decode together; beyond this the matrix products, not the operator calls, bound the speed on a CPU."""

SPECULATIVE_ROWS = 8
"""Up to so many rows, greedy decoding with drafts is faster than without; measured, see docs/experiments.md."""


class Sampler:
    """Samples from the weights that the model has at the time of the call.

    `speculative` lets few greedy rows decode with drafts when the model has multi-token prediction; it changes no token.
    """

    def __init__(
        self, model: Transformer, *, eos_token_id: int, pad_token_id: int, max_rows: int = MAX_ROWS, speculative: bool = True
    ) -> None:
        self.model, self.eos, self.pad, self.max_rows = model, eos_token_id, pad_token_id, max_rows
        self.speculative = speculative and model.next_token_block is not None

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], *, num_samples: int = 1, max_new_tokens: int, temperature: float = 1.0,
        top_p: float = 1.0, seed: int = 0,
    ) -> list[list[Completion]]:  # fmt: skip
        """`num_samples` completions for each prompt.

        A completion depends on the weights, its prompt, `max_new_tokens`, the seed and its number in the call, not on
        `max_rows` or on when a row was free for it. Raises ConfigError when prompt and completion cannot fit the model's
        context.
        """
        if not prompts:
            return []
        self._check(prompts, max_new_tokens)
        was_training = self.model.training
        self.model.eval()
        wish = Wish(prompts, num_samples, max_new_tokens, temperature, top_p, seed, self.eos, self.pad)
        try:
            work = self._work(wish)
            work.run()
        finally:
            self.model.train(was_training)
        return work.completions

    def _work(self, wish: Wish) -> Batch | Speculation:
        return (Speculation if self._speculates(wish) else Batch)(self.model, wish, self.max_rows)

    def _speculates(self, wish: Wish) -> bool:
        few = min(self.max_rows, len(wish.prompts) * wish.num_samples) <= SPECULATIVE_ROWS
        return self.speculative and few and wish.temperature < GREEDY_BELOW

    def _check(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        longest, room = max(len(prompt) for prompt in prompts), self.model.config.max_position_embeddings
        if not all(prompts):
            raise ConfigError("A prompt has no token; leave it out.")
        if longest + max_new_tokens > room:
            raise ConfigError(
                f"A prompt has {longest} tokens and the answer may have {max_new_tokens}, but the model's context is "
                f"{room} tokens; shorten either.", field="held_out.max_new_tokens",
            )  # fmt: skip
