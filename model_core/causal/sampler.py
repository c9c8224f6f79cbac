"""Samples completions from a student: rows padded on the left decode together over transformers' own cache.

Simpler than `model_core.rollout.batch`: a row that has ended waits until all of its part have. Letters: B rows of a part,
T tokens of the longest prompt, V vocabulary, W = max_new_tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from model_core.causal.student import Student
from model_core.rollout.batch import Completion, Wish
from model_core.rollout.sampler import MAX_ROWS, Sampler
from model_core.rollout.sampling import GREEDY_BELOW, Cut, draw, most_likely


class StudentSampler(Sampler):
    """`Sampler` of a student: the same calls, the same results."""

    def __init__(self, model: Student, *, eos_token_id: int, pad_token_id: int, max_rows: int = MAX_ROWS) -> None:
        self.model: Any = model
        self.eos, self.pad, self.max_rows, self.speculative = eos_token_id, pad_token_id, max_rows, False

    def _work(self, wish: Wish) -> Any:
        return _Rows(self.model, wish, self.max_rows)


class _Rows:
    """One `generate` at work. The random numbers of a completion are those of its number in the call."""

    def __init__(self, model: Student, wish: Wish, max_rows: int) -> None:
        self.model, self.wish, self.max_rows = model, wish, max_rows
        self.device = model.lm_head.weight.device
        self.completions = [[Completion() for _ in range(wish.num_samples)] for _ in wish.prompts]
        self.cut = Cut(wish.top_p) if wish.top_p < 1 else None

    def run(self) -> None:
        """Makes every completion."""
        wish = self.wish
        owners = [(prompt, made) for prompt, group in zip(wish.prompts, self.completions, strict=True) for made in group]
        generator = torch.Generator(device=self.device).manual_seed(wish.seed)
        uniform = torch.rand((len(owners), wish.max_new_tokens), dtype=torch.float64, device=self.device, generator=generator)
        for first in range(0, len(owners), self.max_rows):
            part = owners[first : first + self.max_rows]
            tokens, logprobs = self._decode([list(prompt) for prompt, _made in part], uniform[first : first + len(part)])
            for (_prompt, made), own_tokens, own_logprobs in zip(part, tokens, logprobs, strict=True):
                num = own_tokens.index(wish.eos) + 1 if wish.eos in own_tokens else len(own_tokens)
                made.tokens, made.logprobs = own_tokens[:num], own_logprobs[:num]
                made.finish_reason = "stop" if made.tokens[-1] == wish.eos else "length"

    def _decode(self, prompts: list[list[int]], uniform_BW: Tensor) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and log-probabilities of each row until all have ended; what is after an end token means nothing."""
        width = max(map(len, prompts))
        tokens_BT = torch.tensor([[self.wish.pad] * (width - len(p)) + p for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        positions_BT, cache = (mask.cumsum(dim=1) - 1).clamp_min(0), DynamicCache()
        alive_B = torch.ones(len(prompts), dtype=torch.bool, device=self.device)
        made: list[tuple[Tensor, Tensor]] = []
        while True:
            logits_BV = self.model.step(tokens_BT, mask=mask, positions_BT=positions_BT, cache=cache)
            tokens_B, logprobs_B = self._draw(logits_BV, uniform_BW[:, len(made)])
            made.append((tokens_B, logprobs_B))
            alive_B &= tokens_B != self.wish.eos
            if len(made) == self.wish.max_new_tokens or not alive_B.any():
                break
            tokens_BT, positions_BT = tokens_B[:, None], positions_BT[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        return torch.stack([t for t, _l in made], dim=1).tolist(), torch.stack([p for _t, p in made], dim=1).tolist()

    def _draw(self, logits_BV: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
        if self.wish.temperature < GREEDY_BELOW:
            return most_likely(logits_BV)
        return draw(logits_BV, uniform_B, temperature=self.wish.temperature, cut=self.cut)
