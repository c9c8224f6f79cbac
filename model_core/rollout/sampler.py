"""Samples completions in batches: each prompt is prefilled once and shared by its group, rows are refilled when done.

The log-probabilities are those of the sampling distribution, so that the trainer can compare them with its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model_core.errors import ConfigError
from model_core.model import Transformer
from model_core.rollout.cache import LatentCache, decode_step
from model_core.rollout.sampling import draw

MAX_ROWS = 512
"""Rows that decode together; beyond this the matrix products, not the operator calls, bound the speed on a CPU."""


@dataclass
class Completion:
    """Tokens after the prompt, the end token included when it came, with their log-probabilities."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = "length"


class Sampler:
    """Samples from the weights that the model has at the time of the call."""

    def __init__(self, model: Transformer, *, eos_token_id: int, pad_token_id: int, max_rows: int = MAX_ROWS) -> None:
        self.model, self.eos, self.pad, self.max_rows = model, eos_token_id, pad_token_id, max_rows

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], *, num_samples: int = 1, max_new_tokens: int, temperature: float = 1.0,
        top_p: float = 1.0, seed: int = 0,
    ) -> list[list[Completion]]:  # fmt: skip
        """`num_samples` completions for each prompt. The same seed, prompts and weights give the same tokens.

        Raises ConfigError when prompt and completion cannot fit the model's context.
        """
        if not prompts:
            return []
        self._check(prompts, max_new_tokens)
        was_training = self.model.training
        self.model.eval()
        try:
            batch = _Batch(self, prompts, num_samples, max_new_tokens, temperature, top_p, seed)
            while batch.advance():
                pass
        finally:
            self.model.train(was_training)
        return batch.completions

    def _check(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        longest, room = max(len(prompt) for prompt in prompts), self.model.config.max_position_embeddings
        if not all(prompts):
            raise ConfigError("A prompt has no token; leave it out.")
        if longest + max_new_tokens > room:
            raise ConfigError(
                f"A prompt has {longest} tokens and the answer may have {max_new_tokens}, but the model's context is "
                f"{room} tokens; shorten either.", field="held_out.max_new_tokens",
            )  # fmt: skip


class _Batch:
    """The state of one `generate`: which row makes which completion, and which wait for a row."""

    def __init__(
        self, sampler: Sampler, prompts: Sequence[Sequence[int]], num_samples: int, max_new_tokens: int, temperature: float,
        top_p: float, seed: int,
    ) -> None:  # fmt: skip
        self.sampler, self.prompts = sampler, prompts
        self.max_new_tokens, self.temperature, self.top_p = max_new_tokens, temperature, top_p
        device = sampler.model.lm_head.weight.device
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.completions = [[Completion() for _ in range(num_samples)] for _ in prompts]
        self.waiting = deque((p, s) for p in range(len(prompts)) for s in range(num_samples))
        num_rows = min(sampler.max_rows, len(self.waiting))
        self.cache = LatentCache(sampler.model, num_rows, max(map(len, prompts)) + max_new_tokens)
        self.owner: list[Completion | None] = [None] * num_rows
        self.rows = torch.zeros(0, dtype=torch.long, device=device)
        self.tokens = torch.zeros(0, dtype=torch.long, device=device)

    def advance(self) -> bool:
        """Refills free rows when a quarter is free, takes one decoding step, and says whether there is more to do."""
        free = [row for row, owner in enumerate(self.owner) if owner is None]
        if self.waiting and len(free) * 4 >= len(self.owner):
            self._refill(free)
        if not len(self.rows):
            return bool(self.waiting)
        logits_BV = decode_step(self.sampler.model, self.cache, self.rows, self.tokens)
        self._take(self.rows, logits_BV)
        return True

    def _refill(self, free: list[int]) -> None:
        taken = [self.waiting.popleft() for _ in range(min(len(free), len(self.waiting)))]
        rows = torch.tensor(free[: len(taken)], device=self.tokens.device)
        for row, (prompt, sample) in zip(rows.tolist(), taken, strict=True):
            self.owner[row] = self.completions[prompt][sample]
        distinct = sorted({prompt for prompt, _sample in taken})
        place = {prompt: position for position, prompt in enumerate(distinct)}
        which = torch.tensor([place[prompt] for prompt, _sample in taken], device=self.tokens.device)
        logits_BV, latents, lengths = self._prefill([self.prompts[prompt] for prompt in distinct])
        self.cache.fill(rows, [latent[which] for latent in latents], lengths[which])
        kept_rows, kept_tokens = self.rows, self.tokens
        self._take(rows, logits_BV[which])
        rows_B, tokens_B = torch.cat([kept_rows, self.rows]), torch.cat([kept_tokens, self.tokens])
        self.rows, order = rows_B.sort()
        self.tokens = tokens_B[order]

    def _prefill(self, prompts: list[Sequence[int]]) -> tuple[Tensor, list[Tensor], Tensor]:
        device, longest = self.tokens.device, max(map(len, prompts))
        padded = [[*prompt, *[self.sampler.pad] * (longest - len(prompt))] for prompt in prompts]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        hidden_BTD, latents = self.sampler.model.hidden(torch.tensor(padded, device=device))
        last_BD = hidden_BTD[torch.arange(len(prompts), device=device), lengths - 1]
        return self.sampler.model.lm_head(last_BD), latents, lengths

    def _take(self, rows_B: Tensor, logits_BV: Tensor) -> None:
        """Draws a token for each row, writes it down, and keeps the rows that go on as `rows` and `tokens`."""
        tokens_B, logprobs_B = draw(logits_BV, temperature=self.temperature, top_p=self.top_p, generator=self.generator)
        going = []
        for row, token, logprob in zip(rows_B.tolist(), tokens_B.tolist(), logprobs_B.tolist(), strict=True):
            completion = self.owner[row]
            assert completion is not None
            completion.tokens.append(token)
            completion.logprobs.append(logprob)
            ended = token == self.sampler.eos
            if ended:
                completion.finish_reason = "stop"
            going.append(not ended and len(completion.tokens) < self.max_new_tokens)
            if not going[-1]:
                self.owner[row] = None
        keep = torch.tensor(going, device=rows_B.device)
        self.rows, self.tokens = rows_B[keep], tokens_B[keep]
