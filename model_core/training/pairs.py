"""The step of the phase `reward_model`: of two answers to a prompt the chosen one is to score higher.

Loss of a pair: −log σ(chosen − rejected), the Bradley–Terry model. Source: Stiennon et al. (arXiv 2009.01325), section 3.4;
Ouyang et al. (arXiv 2203.02155), equation 1. With `centre_coef` also (chosen + rejected)², which keeps scores near 0: Eisenstein
et al. (arXiv 2312.09244), section 4. Letters: M documents of a pass, two a pair; P pairs of a pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.data.batches import PackedBatch, passes_of_rank
from model_core.data.dataset import Row, read_rows
from model_core.data.order import indices_of_step
from model_core.evaluation.statistics import measured
from model_core.reward_model.scoring import pack_documents, scores_of
from model_core.training.frame import Frame, Outcome
from model_core.training.layouts import Share
from model_core.training.reward_models import Documents, RewardStart, encode_pairs

if TYPE_CHECKING:
    from model_core.phases.reward_model import RewardModel as Phase

CENTRE_SHARE = 0.1
"""How far the centre goes, with each step, towards the mean score of the step's answers."""
NUM_EXAMPLES = 8


@dataclass
class PairPass:
    """One forward pass over some of a step's pairs, and its part of the loss."""

    batch: PackedBatch
    fraction: float
    """What the sum over this pass's pairs is multiplied with; 0 where the pass does not count."""
    centre_coef: float
    scores: list[float] = field(default_factory=list, init=False)
    """Chosen, rejected, chosen, rejected …; none where the pass does not count."""
    centring: float = field(default=0.0, init=False)
    """This pass's part of the mean square that `centre_coef` is the factor of."""

    def __call__(self, model: nn.Module) -> Tensor:
        tokens_1N = self.batch.tokens_1N
        mask_1N = torch.full_like(tokens_1N, float(self.fraction > 0), dtype=torch.float32)
        scores_M = model(tokens_1N, attention_mask=mask_1N, packing=self.batch.packing, at_M=self.batch.at_M).float()
        chosen_P, rejected_P = scores_M[0::2], scores_M[1::2]
        centring = self.fraction * (chosen_P + rejected_P).square().sum()
        self.scores = scores_M.tolist() if self.fraction else []
        self.centring = float(centring.detach())
        loss: Tensor = self.centre_coef * centring - self.fraction * F.logsigmoid(chosen_P - rejected_P).sum()
        return loss


def pair_passes(
    pairs: Sequence[Documents], *, max_tokens: int, share: Share, device: torch.device, centre_coef: float = 0.0
) -> list[PairPass]:
    """The forward passes of one step's `pairs` that fall to `share`; both answers of a pair are in one pass."""
    lengths = [2 * max(map(len, pair)) for pair in pairs]
    return [
        PairPass(pack_documents([document for i in indices for document in pairs[i]], device=device),
                 float(counts) / len(pairs), centre_coef)
        for indices, counts in passes_of_rank(lengths, max_tokens=max_tokens, rank=share.rank, size=share.size)
    ]  # fmt: skip


class PairSteps:
    """Makes step after step over `pairs`, and measures on the held-out pairs of the dataset."""

    def __init__(self, frame: Frame, settings: Phase.Config, start: RewardStart, pairs: Sequence[Documents]) -> None:
        self._frame, self._settings, self._pairs = frame, settings, pairs
        self._centre: Tensor = frame.engine.module.centre  # type: ignore[assignment]
        dataset, wanted = frame.context.paths.dataset, frame.config.held_out.num_problems
        rows = read_rows(dataset, "held_out") if dataset else []
        self._held_out = [row for row in rows if row.chosen is not None][: max(wanted, frame.config.held_out.num_problems_during)]
        self._asked = encode_pairs(start, self._held_out)

    def __call__(self, step: int) -> Outcome:
        frame, settings, share = self._frame, self._settings, self._frame.engine.share
        chosen = [self._pairs[i] for i in indices_of_step(
            step, num_examples=len(self._pairs), batch_size=settings.batch_size, seed=frame.config.seed)]
        passes = pair_passes(chosen, max_tokens=settings.max_micro_tokens, share=share, device=frame.world.device,
                             centre_coef=settings.centre_coef)
        report = frame.update(passes, step=step, num_sequences=2 * len(chosen))
        centring = sum(one.centring for one in passes)
        scores = [score for part in frame.world.gather([s for one in passes for s in one.scores]) for score in part]
        self._move_centre(fmean(scores), is_first=step == 0)
        values = {"lr": report.lr, "grad_norm": report.grad_norm, **report.values, **_metrics(scores)}
        values["pairs/centre"] = float(self._centre)
        if settings.centre_coef:
            values["pairs/centring"] = sum(frame.world.gather(centring))
        tokens = sum(one.batch.tokens_1N.numel() for one in passes if one.fraction)
        return Outcome(num_tokens=tokens, loss_share=report.loss - settings.centre_coef * centring, values=values)

    def measure(self, limit: int) -> dict[str, Any] | None:
        """The payload of an `evaluation` event on at most `limit` held-out pairs, without step and when; None without any.

        Accuracy, which is the quality too, is the share of pairs whose chosen answer scores higher.
        """
        frame, pairs = self._frame, self._asked[:limit]
        if not pairs:
            return None
        model, mine = frame.whole().eval(), pairs[frame.world.rank :: frame.world.size]
        found = scores_of(model, [document for pair in mine for document in pair], device=frame.world.device,
                          max_tokens=self._settings.max_micro_tokens)
        shares = frame.world.gather(list(zip(found[0::2], found[1::2], strict=True)))
        in_order = [shares[place % frame.world.size][place // frame.world.size] for place in range(len(pairs))]
        return _summary(list(zip(self._held_out, in_order, strict=False)))

    @torch.no_grad()
    def _move_centre(self, mean: float, *, is_first: bool) -> None:
        if math.isfinite(mean):  # the frame ends a run whose loss is not
            self._centre.lerp_(torch.full_like(self._centre, mean), 1.0 if is_first else CENTRE_SHARE)


def _metrics(scores: Sequence[float]) -> dict[str, float | None]:
    chosen, rejected = scores[0::2], scores[1::2]
    return {
        "pairs/accuracy": fmean(float(one > other) for one, other in zip(chosen, rejected, strict=True)),
        "pairs/margin": fmean(chosen) - fmean(rejected), "pairs/chosen": fmean(chosen), "pairs/rejected": fmean(rejected),
    }  # fmt: skip


def _summary(judged: Sequence[tuple[Row, tuple[float, float]]]) -> dict[str, Any]:
    """Accuracy has Wilson's interval. A pair with a score that is not finite is unscored."""
    known = [pair for _row, pair in judged if all(map(math.isfinite, pair))]
    right = [float(chosen > rejected) for chosen, rejected in known]
    parts = {"chosen": [c for c, _r in known], "rejected": [r for _c, r in known], "margin": [c - r for c, r in known]}
    measures = {name: measured(values) for name, values in {**parts, "accuracy": right, "quality": right}.items()}
    bounds = (("", "value"), ("_low", "low"), ("_high", "high"))
    return {
        **{f"{name}{end}": measures[name][key] for name in ("accuracy", "quality") for end, key in bounds},
        "num_problems": len(judged), "components": {name: measures[name]["value"] for name in parts}, "measures": measures,
        "unscored": len(judged) - len(known), "examples": [_example(*pair) for pair in judged[:NUM_EXAMPLES]],
    }  # fmt: skip


def _example(row: Row, scores: tuple[float, float]) -> dict[str, Any]:
    chosen, rejected = scores
    return {
        "prompt": row.prompt, "completion": row.chosen, "expected": None, "correct": chosen > rejected, "reward": chosen - rejected,
        "components": {"chosen": chosen, "rejected": rejected}, "rejected": row.rejected,
    }  # fmt: skip
