"""The step of supervised phases: cross-entropy on the completions of one batch of demonstrations.

Letters: B sequences, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from model_core.data.batches import make_batch, passes_of_rank
from model_core.data.order import indices_of_step
from model_core.training.frame import Frame, Outcome
from model_core.training.start import Encoded


class SupervisedSteps:
    """Makes step after step over `examples`; the loss is the mean over the completion tokens of the whole batch."""

    def __init__(self, frame: Frame, examples: Sequence[Encoded], *, batch_size: int) -> None:
        self._frame, self._examples, self._batch_size = frame, examples, batch_size
        self._pad = int(frame.tokenizer.pad_token_id)

    def __call__(self, step: int) -> Outcome:
        frame, world = self._frame, self._frame.world
        chosen = [self._examples[i] for i in indices_of_step(
            step, num_examples=len(self._examples), batch_size=self._batch_size, seed=frame.config.seed)]
        num_targets = sum(len(completion) for _prompt, completion in chosen)
        passes = passes_of_rank([len(p) + len(c) for p, c in chosen], max_tokens=frame.settings.max_micro_tokens,
                                rank=world.rank, size=world.size)
        losses = [self._loss([chosen[i] for i in indices], float(counts), num_targets) for indices, counts in passes]
        report = frame.update(losses, step=step)
        tokens = sum(len(chosen[i][0]) + len(chosen[i][1]) for indices, counts in passes if counts for i in indices)
        values = {"lr": report.lr, "grad_norm": report.grad_norm}
        return Outcome(num_tokens=tokens, loss_share=report.loss, values=values)

    def _loss(self, examples: list[Encoded], weight: float, num_targets: int) -> Callable[[nn.Module], Tensor]:
        def loss(model: nn.Module) -> Tensor:
            batch = make_batch(examples, pad=self._pad, device=self._frame.world.device)
            logits_BTV = model(batch.tokens_BT, attention_mask=batch.real_BT * weight)
            return weight / num_targets * cross_entropy(logits_BTV, batch.targets_BT, batch.mask_BT)

        return loss


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum of the cross-entropy over the tokens that the mask counts."""
    losses_BT = torch.nn.functional.cross_entropy(logits_BTV.float().transpose(1, 2), targets_BT, reduction="none")
    return (losses_BT * mask_BT).sum()
