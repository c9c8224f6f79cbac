"""The held-out loss: how well a model foresees the demonstrations of held-out problems, token by token.

Nothing is sampled: one forward pass a demonstration. What a model answers by itself is measured in `measuring`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerFast

from model_core.data.batches import pack_batch, split_by_size
from model_core.data.dataset import Row
from model_core.data.tokenizer import encode_rows
from model_core.evaluation.statistics import measured
from model_core.training.start import Encoded
from model_core.training.world import World


def demonstrations(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], *, limit: int) -> list[Encoded]:
    """The demonstrations of `rows` in tokens, without those that are, with their prompt, longer than `limit`."""
    encoded = encode_rows(tokenizer, [row for row in rows if row.completion is not None])
    return [(prompt, told) for prompt, told in encoded if len(prompt) + len(told) <= limit]


def held_out_loss(model: nn.Module, told: Sequence[Encoded], *, world: World, max_tokens: int) -> dict[str, Any]:
    """Mean of the losses of what is told, each rank its share, as `statistics.measured` says it.

    One whose loss is not finite is left out and not counted, like a problem that could not be scored.
    """
    mine = losses(model, told[world.rank :: world.size], device=world.device, max_tokens=max_tokens)
    shares = world.gather(mine)
    in_order = [shares[place % world.size][place // world.size] for place in range(len(told))]
    return measured([loss for loss in in_order if math.isfinite(loss)])


@torch.no_grad()
def losses(model: nn.Module, told: Sequence[Encoded], *, device: torch.device, max_tokens: int) -> list[float]:
    """Of each (prompt, completion), in order, the mean cross-entropy of the completion's tokens, its end token among them.

    Units: nats a token. The prompt is read and not asked for, as in supervised training.
    """
    found = [math.nan] * len(told)
    for indices in split_by_size([len(prompt) + len(completion) for prompt, completion in told], max_tokens=max_tokens):
        batch = pack_batch([told[i] for i in indices], device=device)
        logits_MV = model(batch.tokens_1N, packing=batch.packing, at_M=batch.at_M)
        each_M = F.cross_entropy(logits_MV.float(), batch.targets_M, reduction="none")
        of_one = torch.split(each_M, [len(told[i][1]) for i in indices])
        for index, loss_M in zip(indices, of_one, strict=True):
            found[index] = float(loss_M.mean())
    return found
