"""The step of supervised phases: cross-entropy on the completions of one batch of demonstrations.

Letters: N tokens of all sequences, M targets, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.data.batches import PackedBatch, pack_batch, passes_of_rank
from model_core.data.order import indices_of_step
from model_core.training.frame import Frame, Outcome
from model_core.training.layouts import Share
from model_core.training.start import Encoded


@dataclass
class SupervisedPass:
    """One forward pass over some of a step's demonstrations, and its part of the loss."""

    batch: PackedBatch
    fraction: float
    """What the sum over this pass's completion tokens is multiplied with; 0 where the pass does not count."""
    mtp_weight: float = 0.0
    """Factor of the loss of multi-token prediction; 0 where the model has none."""
    mtp_loss: float = field(default=0.0, init=False)
    """This pass's part of that loss, without the factor."""

    def __call__(self, model: nn.Module) -> Tensor:
        if not self.mtp_weight:
            return self.loss(model(self.tokens, **self.given))
        logits_MV, next_logits_MV = model(self.tokens, **self.given, next_at_M=self.batch.next_at_M)
        mtp_loss = self.fraction * F.cross_entropy(next_logits_MV.float(), self.batch.next_targets_M, reduction="sum")
        self.mtp_loss = float(mtp_loss.detach())
        return self.loss(logits_MV) + self.mtp_weight * mtp_loss

    @property
    def tokens(self) -> Tensor:
        """What the model reads."""
        return self.batch.tokens_1N

    @property
    def given(self) -> dict[str, Any]:
        """What else it is given; what is routed in a pass that does not count is no load."""
        mask_1N = torch.full_like(self.tokens, float(self.fraction > 0), dtype=torch.float32)
        return {"attention_mask": mask_1N, "packing": self.batch.packing, "at_M": self.batch.at_M}

    def loss(self, logits_MV: Tensor) -> Tensor:
        """This pass's part of the mean over the completion tokens of the whole batch."""
        return self.fraction * F.cross_entropy(logits_MV.float(), self.batch.targets_M, reduction="sum")


class SupervisedSteps:
    """Makes step after step over `examples`; the loss is the mean over the completion tokens of the whole batch."""

    def __init__(self, frame: Frame, examples: Sequence[Encoded], *, batch_size: int) -> None:
        self._frame, self._examples, self._batch_size = frame, examples, batch_size

    def __call__(self, step: int) -> Outcome:
        frame, share = self._frame, self._frame.engine.share
        chosen = [self._examples[i] for i in indices_of_step(
            step, num_examples=len(self._examples), batch_size=self._batch_size, seed=frame.config.seed)]
        mtp_weight = frame.settings.mtp_loss_weight if frame.model_config.num_nextn_predict_layers else 0.0
        passes = supervised_passes(chosen, max_tokens=frame.settings.max_micro_tokens, share=share, device=frame.world.device,
                                   mtp_weight=mtp_weight)
        report = frame.update(passes, step=step, num_sequences=len(chosen))
        values = {"lr": report.lr, "grad_norm": report.grad_norm, **report.values}
        mtp_loss = sum(one.mtp_loss for one in passes) if share.is_teller else 0.0
        if mtp_weight:
            values["loss/mtp"] = sum(frame.world.gather(mtp_loss))
        if not share.is_teller:
            return Outcome(num_tokens=0, loss_share=0.0, values=values)
        tokens = sum(one.tokens.numel() + one.batch.packing.num_rows for one in passes if one.fraction)
        return Outcome(num_tokens=tokens, loss_share=report.loss - mtp_weight * mtp_loss, values=values)


def supervised_passes(
    examples: Sequence[Encoded], *, max_tokens: int, share: Share, device: torch.device, mtp_weight: float = 0.0
) -> list[SupervisedPass]:
    """The forward passes of one step's `examples` that fall to `share`; every share gets equally many."""
    num_targets = sum(len(completion) for _prompt, completion in examples)
    lengths = [len(prompt) + len(completion) for prompt, completion in examples]
    return [
        SupervisedPass(pack_batch([examples[i] for i in indices], device=device), float(counts) / num_targets, mtp_weight)
        for indices, counts in passes_of_rank(lengths, max_tokens=max_tokens, rank=share.rank, size=share.size)
    ]
