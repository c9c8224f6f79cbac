"""One `generate` at work: rows that decode together, completions that wait for one, prompts read ahead in chunks.

A row whose completion has ended waits, its length frozen, until enough others have: then all of them are refilled at once,
or, when nothing waits, taken out. Everything that a step does is one operator over all rows.
Letters: B rows, V vocabulary, W = max_new_tokens + 1, T prompt tokens, C numbers a cached token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from model_core.model import Transformer
from model_core.rollout.cache import LatentCache
from model_core.rollout.decoder import Decoder
from model_core.rollout.sampling import GREEDY_BELOW, Cut, NonFiniteLogits, draw, most_likely

RENEW_FRACTION = 1 / 16
"""Rows are refilled or taken out when so many have ended; measured, see docs/experiments.md."""
PREFILL_TOKENS = 8192
"""Prompts are read in chunks of about so many tokens, padding included."""


@dataclass
class Completion:
    """Tokens after the prompt, the end token included when it came, with their log-probabilities."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = "length"


@dataclass(frozen=True)
class Wish:
    """What `generate` was asked for."""

    prompts: Sequence[Sequence[int]]
    num_samples: int
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    eos: int
    pad: int


class Chunk(NamedTuple):
    """Prompts that were read: `first` is the number of the first of them."""

    first: int
    cache: LatentCache
    logits_PV: Tensor

    @property
    def end(self) -> int:
        """The number of the first prompt after them."""
        return self.first + self.cache.num_rows


class Batch:
    """Rows, and the completions that they make."""

    def __init__(self, model: Transformer, wish: Wish, max_rows: int) -> None:
        self.model, self.wish, self.device = model, wish, model.lm_head.weight.device
        self.completions = [[Completion() for _ in range(wish.num_samples)] for _ in wish.prompts]
        self.waiting = deque((p, s) for p in range(len(wish.prompts)) for s in range(wish.num_samples))
        num = self.num_rows = min(max_rows, len(self.waiting))
        self.decoder, width = Decoder(model), wish.max_new_tokens + 1
        self.cache = LatentCache(model, num, max(map(len, wish.prompts)) + wish.max_new_tokens)
        self.owners: list[Completion] = [Completion()] * num
        self.last_B = torch.zeros(num, dtype=torch.long, device=self.device)
        self.made_B, self.alive_B = torch.zeros_like(self.last_B), torch.zeros_like(self.last_B, dtype=torch.bool)
        self.starts_B = torch.arange(num, device=self.device) * width
        self.tokens_BW = torch.zeros(num, width, dtype=torch.long, device=self.device)
        self.logprobs_BW = torch.zeros(num, width, device=self.device)
        self.uniform_BW = torch.zeros(num, width, dtype=torch.float64, device=self.device)
        self.generator = torch.Generator(device=self.device).manual_seed(wish.seed)
        self.greedy = wish.temperature < GREEDY_BELOW
        self.cut = Cut(wish.top_p) if wish.top_p < 1 else None
        self.chunk: Chunk | None = None

    def run(self) -> None:
        """Makes every completion."""
        self._refill(list(range(self.num_rows)))
        while self.num_rows:
            num_ended = self.num_rows - int(self.alive_B[: self.num_rows].sum())
            if num_ended and num_ended >= RENEW_FRACTION * self.num_rows:
                self._renew()
            else:
                self._advance()

    def _advance(self) -> None:
        """Feeds the last token of every row and takes the next one down."""
        num = self.num_rows
        alive_B, made_B, last_B = self.alive_B[:num], self.made_B[:num], self.last_B[:num]
        logits_BV = self.decoder.step(self.cache, last_B[:, None], alive_B)[:, 0]
        slots_B = self.starts_B[:num] + made_B
        try:
            tokens_B, logprobs_B = self._draw(logits_BV, self.uniform_BW.view(-1).index_select(0, slots_B))
        except NonFiniteLogits as error:
            raise NonFiniteLogits(error.row, num_made=int(made_B[error.row])) from error
        self.tokens_BW.view(-1).index_copy_(0, slots_B, tokens_B)
        self.logprobs_BW.view(-1).index_copy_(0, slots_B, logprobs_B)
        made_B += alive_B
        alive_B &= (tokens_B != self.wish.eos) & (made_B < self.wish.max_new_tokens)
        last_B.copy_(tokens_B)

    def _draw(self, logits_BV: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
        if self.greedy:
            return most_likely(logits_BV)
        return draw(logits_BV, uniform_B, temperature=self.wish.temperature, cut=self.cut)

    def _renew(self) -> None:
        """Writes down the completions that have ended, and gives their rows to others or takes them out."""
        ended_B = (~self.alive_B[: self.num_rows]).nonzero()[:, 0]
        made = self.made_B[ended_B].tolist()
        tokens, logprobs = self.tokens_BW[ended_B].tolist(), self.logprobs_BW[ended_B].tolist()
        for place, row in enumerate(ended_B.tolist()):
            completion, num = self.owners[row], made[place]
            completion.tokens, completion.logprobs = tokens[place][:num], logprobs[place][:num]
            completion.finish_reason = "stop" if completion.tokens[-1] == self.wish.eos else "length"
        free = self._refill(ended_B.tolist())
        if free:
            self._take_out(set(free))
        self.cache.measure(self.num_rows)

    def _refill(self, free: list[int]) -> list[int]:
        """Begins waiting completions in the rows `free`; returns the rows that are still free."""
        while free and self.waiting:
            chunk = self._chunk_with(self.waiting[0][0])
            taken: list[tuple[int, int]] = []
            while self.waiting and len(taken) < len(free) and self.waiting[0][0] < chunk.end:
                taken.append(self.waiting.popleft())
            rows, free = free[: len(taken)], free[len(taken) :]
            for row, (prompt, sample) in zip(rows, taken, strict=True):
                self.owners[row] = self.completions[prompt][sample]
            which = torch.tensor([prompt - chunk.first for prompt, _sample in taken], device=self.device)
            self._begin(torch.tensor(rows, device=self.device), which, chunk)
        return free

    def _begin(self, rows_B: Tensor, which_B: Tensor, chunk: Chunk) -> None:
        self.cache.take(rows_B, chunk.cache, which_B)
        shape = len(rows_B), self.wish.max_new_tokens
        if not self.greedy:
            uniform = torch.rand(shape, dtype=torch.float64, device=self.device, generator=self.generator)
            self.uniform_BW[rows_B, : shape[1]] = uniform
        tokens_B, logprobs_B = self._draw(chunk.logits_PV[which_B], self.uniform_BW[rows_B, 0])
        self.tokens_BW[rows_B, 0], self.logprobs_BW[rows_B, 0] = tokens_B, logprobs_B
        self.made_B[rows_B], self.last_B[rows_B] = 1, tokens_B
        self.alive_B[rows_B] = (tokens_B != self.wish.eos) & (self.wish.max_new_tokens > 1)

    def _chunk_with(self, prompt: int) -> Chunk:
        """The chunk of prompts that holds `prompt`, read now if it was not yet."""
        if self.chunk is None or prompt >= self.chunk.end:
            self.chunk = self._read(prompt)
        return self.chunk

    def _read(self, first: int) -> Chunk:
        longest, num = len(self.wish.prompts[first]), 1
        for prompt in self.wish.prompts[first + 1 :]:
            if max(longest, len(prompt)) * (num + 1) > PREFILL_TOKENS:
                break
            longest, num = max(longest, len(prompt)), num + 1
        tokens_PT, lengths_P = padded(self.wish.prompts[first : first + num], self.wish.pad, self.device)
        cache = LatentCache(self.model, num, longest)
        hidden_PTD, _place = self.decoder.read(cache, tokens_PT, lengths_P)
        last_PD = hidden_PTD[torch.arange(num, device=self.device), lengths_P - 1]
        return Chunk(first, cache, self.decoder.logits(last_PD))

    def _take_out(self, gone: set[int]) -> None:
        keep = [row for row in range(self.num_rows) if row not in gone]
        kept_B, self.num_rows = torch.tensor(keep, dtype=torch.long, device=self.device), len(keep)
        self.cache.take(torch.arange(len(keep), device=self.device), self.cache, kept_B)
        for state in (self.last_B, self.made_B, self.alive_B, self.tokens_BW, self.logprobs_BW, self.uniform_BW):
            state[: len(keep)] = state[kept_B]
        self.owners = [self.owners[row] for row in keep]


def padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as one tensor PT, padded on the right, and their lengths P."""
    longest = max(map(len, prompts))
    tokens = [[*prompt, *[pad] * (longest - len(prompt))] for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor([len(prompt) for prompt in prompts], device=device)
