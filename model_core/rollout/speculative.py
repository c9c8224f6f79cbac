"""Self-speculative greedy decoding: the block of multi-token prediction drafts a token, the model checks it in its next step.

A step feeds each row its last token and the draft of the one after. What the model says behind the first decides the next
token, as ever; when that is the draft, what it says behind the second counts too. So the tokens are those of plain
greedy decoding whatever the drafts are. Only greedy: drawn tokens would need rejection sampling to keep their
distribution. Letters: B rows, T tokens, N = B · 2, D hidden, V vocabulary.
Source: DeepSeek-V3 (arXiv 2412.19437), sections 2.2 and 5.4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.model import Transformer
from model_core.rollout.batch import Completion, Wish, padded
from model_core.rollout.cache import LatentCache
from model_core.rollout.decoder import Decoder, Layer, Norm, Place
from model_core.rollout.sampling import most_likely


class Drafter:
    """The block of multi-token prediction as decoding wants it.

    What the embedding gives to the block's input is known for every token beforehand: norm and product are one look-up.
    """

    def __init__(self, model: Transformer) -> None:
        block = model.next_token_block
        assert block is not None, "only a model with multi-token prediction can draft"
        self.model, self.block, self.head = model, block, model.lm_head.weight
        self.layer, self.hidden_norm, self.last_norm = Layer(block), Norm(block.hnorm), Norm(block.shared_head.norm)
        of_token_DD, of_hidden_DD = block.eh_proj.weight.chunk(2, dim=1)
        self.tokens_VD = F.linear(Norm(block.enorm)(model.model.embed_tokens.weight), of_token_DD)
        self.of_hidden = (of_hidden_DD * self.hidden_norm.weight).t()

    def step(self, cache_BSC: Tensor, hidden_ND: Tensor, next_N: Tensor, place: Place) -> Tensor:
        """What follows `next_N`, the tokens after those that `hidden_ND` stands for."""
        x_ND = torch.addmm(self.tokens_VD.index_select(0, next_N), self.hidden_norm.unit(hidden_ND), self.of_hidden)
        self.layer.step(x_ND, place, cache_BSC)
        return F.linear(self.last_norm(x_ND), self.head).argmax(dim=-1)

    def read(self, cache: LatentCache, hidden_BTD: Tensor, next_BT: Tensor, place: Place | None) -> Tensor:
        """What follows each of `next_BT`, and the latents of the prompts into the cache. See `Decoder.read`."""
        if place is not None:
            return self.step(cache.layers[-1], hidden_BTD.flatten(0, 1), next_BT.flatten(), place).view_as(next_BT)
        joined_BTD = self.block.join(hidden_BTD, self.model.model.embed_tokens(next_BT))
        cos, sin = (table[None, : next_BT.shape[1]].expand(len(next_BT), -1, -1) for table in (self.model.cos, self.model.sin))
        x_BTD, latent_BTC = self.block(joined_BTD, cos, sin)
        cache.fill_layer(-1, latent_BTC)
        return F.linear(self.last_norm(x_BTD), self.head).argmax(dim=-1)


@dataclass
class Row:
    """A completion in the making; `draft` is what may follow its last token."""

    completion: Completion
    eos: int
    max_new_tokens: int
    draft: int = 0

    @property
    def ended(self) -> bool:
        tokens = self.completion.tokens
        return tokens[-1] == self.eos or len(tokens) >= self.max_new_tokens

    def take(self, tokens: Sequence[int], logprobs: Sequence[float]) -> int:
        """Takes the first token, and each next one when the one before it was the draft; returns how many."""
        num = 0
        for token, logprob in zip(tokens, logprobs, strict=True):
            if num and (self.ended or self.completion.tokens[-1] != self.draft):
                break
            self.completion.tokens.append(token)
            self.completion.logprobs.append(logprob)
            num += 1
        self.completion.finish_reason = "stop" if self.completion.tokens[-1] == self.eos else "length"
        return num


class Speculation:
    """Makes greedy completions for few rows. `num_steps` and `num_accepted` tell how well the drafts do."""

    def __init__(self, model: Transformer, wish: Wish, max_rows: int) -> None:
        self.model, self.wish, self.max_rows, self.device = model, wish, max_rows, model.lm_head.weight.device
        self.decoder, self.drafter = Decoder(model), Drafter(model)
        self.completions = [[Completion() for _ in range(wish.num_samples)] for _ in wish.prompts]
        self.num_steps = self.num_accepted = 0

    def run(self) -> None:
        """Makes every completion, `max_rows` at a time."""
        wanted = [(p, completion) for p, group in enumerate(self.completions) for completion in group]
        for first in range(0, len(wanted), self.max_rows):
            some = wanted[first : first + self.max_rows]
            prompts = [self.wish.prompts[prompt] for prompt, _completion in some]
            cache = LatentCache(self.model, len(some), max(map(len, prompts)) + self.wish.max_new_tokens, has_draft=True)
            rows = [Row(completion, self.wish.eos, self.wish.max_new_tokens) for _prompt, completion in some]
            self._read(cache, rows, prompts)
            while rows := self._left(cache, rows):
                self._advance(cache, rows)

    def _read(self, cache: LatentCache, rows: list[Row], prompts: list[Sequence[int]]) -> None:
        """Prompts, first tokens and first drafts."""
        tokens_BT, lengths_B = padded(prompts, self.wish.pad, self.device)
        hidden_BTD, place = self.decoder.read(cache, tokens_BT, lengths_B)
        rows_B, last_B = torch.arange(len(rows), device=self.device), lengths_B - 1
        first_B, logprobs_B = most_likely(self.decoder.logits(hidden_BTD[rows_B, last_B]))
        next_BT = tokens_BT.roll(-1, dims=1)
        next_BT[rows_B, last_B] = first_B
        drafts_B = self.drafter.read(cache, hidden_BTD, next_BT, place)[rows_B, last_B]
        for row, token, logprob, draft in zip(rows, first_B.tolist(), logprobs_B.tolist(), drafts_B.tolist(), strict=True):
            row.take([token], [logprob])
            row.draft = draft

    def _advance(self, cache: LatentCache, rows: list[Row]) -> None:
        tokens_BT = torch.tensor([[row.completion.tokens[-1], row.draft] for row in rows], device=self.device)
        hidden_ND, place = self.decoder.hidden(cache, tokens_BT)
        best_N, logprobs_N = most_likely(self.decoder.logits(hidden_ND))
        drafts_N = self.drafter.step(cache.layers[-1], hidden_ND, best_N, place)
        best, logprobs, drafts = (values.view(-1, 2).tolist() for values in (best_N, logprobs_N, drafts_N))
        grown = []
        for place_of_row, row in enumerate(rows):
            num = row.take(best[place_of_row], logprobs[place_of_row])
            row.draft = drafts[place_of_row][num - 1]
            grown.append(num)
        cache.filled_B[: len(rows)] += torch.tensor(grown, device=self.device)
        cache.longest += max(grown)
        self.num_steps, self.num_accepted = self.num_steps + len(rows), self.num_accepted + sum(grown) - len(rows)

    def _left(self, cache: LatentCache, rows: list[Row]) -> list[Row]:
        """The rows that go on, moved to the front."""
        keep = [place for place, row in enumerate(rows) if not row.ended]
        if len(keep) < len(rows):
            kept_B = torch.tensor(keep, dtype=torch.long, device=self.device)
            cache.take(torch.arange(len(keep), device=self.device), cache, kept_B)
            cache.measure(len(keep))
        return [rows[place] for place in keep]
