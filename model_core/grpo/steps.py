"""One step of GRPO: sample, score, keep, update, tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from model_core.data.batches import pack_batch
from model_core.data.dataset import Row
from model_core.data.order import indices_of_step
from model_core.grpo import rollouts
from model_core.grpo.loss import kl_estimate
from model_core.grpo.update import Lesson, MinibatchLosses, Objective, lessons, minibatches, reference_logprobs
from model_core.training.frame import Frame, Outcome

if TYPE_CHECKING:
    from model_core.phases.reinforcement import Reinforcement


class PolicySteps:
    """Makes step after step on `problems`; `reference` is the frozen start of the phase, if KL is wanted."""

    def __init__(
        self, frame: Frame, settings: Reinforcement.Config, problems: Sequence[tuple[Row, list[int]]],
        reference: nn.Module | None,
    ) -> None:
        self._frame, self._settings, self._problems = frame, settings, problems
        self._reference = reference.to(frame.world.device).eval() if reference is not None else None
        self._objective = Objective(settings.clip_low, settings.clip_high, settings.kl_coef, settings.temperature)

    def __call__(self, step: int) -> Outcome:
        frame = self._frame
        collected = self._collect(step)
        frame.keep_rollouts(step + 1, collected.groups)
        frame.reporter.stage("updating", step + 1)
        items = lessons(collected.groups)
        values = {**rollouts.metrics(collected.groups), **collected.seconds}
        if not items:
            frame.reporter.emit("warning", message=(
                f"Step {step + 1} taught nothing: in every group the rewards were equal, or could not be told."))
        loss = self._update(items, step, values) if items else 0.0
        if self._settings.kl_probe and not self._settings.kl_coef:
            values["kl"] = self._probe([Lesson(g.prompt_tokens, r) for g in collected.groups for r in g.rollouts])
        num_tokens = sum(len(g.prompt_tokens) + len(r.tokens) for g in collected.groups for r in g.rollouts)
        return Outcome(num_tokens=num_tokens if frame.world.is_first else 0, loss_share=loss, values=values)

    def _collect(self, step: int) -> rollouts.Collected:
        frame, settings = self._frame, self._settings
        frame.reporter.stage("sampling", step + 1)
        chosen = indices_of_step(step, num_examples=len(self._problems), batch_size=settings.prompts_per_step,
                                 seed=frame.config.seed)
        sampling = rollouts.Sampling(settings.group_size, settings.max_new_tokens, settings.temperature, settings.top_p)
        return rollouts.collect(
            frame.sampler(), frame.tokenizer, [self._problems[i] for i in chosen], sampling=sampling,
            rubric=frame.rubric, world=frame.world, seed=frame.config.seed * 1_000_003 + step,
        )

    def _update(self, items: list[Lesson], step: int, values: dict[str, float | None]) -> float:
        """Updates on all minibatches, adds what was seen to `values`, returns this rank's mean loss."""
        frame, settings, seed = self._frame, self._settings, self._frame.config.seed
        sums: Counter[str] = Counter()
        share, num_updates, first = 0.0, 0, None
        for epoch in range(settings.num_epochs):
            for part in minibatches(items, num=settings.num_minibatches, seed=seed + 7919 * step + epoch):
                losses = MinibatchLosses(part, self._objective, max_tokens=settings.max_micro_tokens,
                                         world=frame.world, reference=self._reference)
                report = frame.update(losses.callables, step=step, num_sequences=len(part))
                first = first or losses
                sums.update(losses.sums)
                sums["num_tokens"] += losses.num_tokens
                share, num_updates = share + report.loss, num_updates + 1
                values |= {"lr": report.lr, "grad_norm": report.grad_norm, **report.values}
        assert first is not None
        self._add_sums(values, sums, first)
        return share / num_updates

    def _add_sums(self, values: dict[str, float | None], sums: Counter[str], first: MinibatchLosses) -> None:
        everything = self._frame.world.gather((dict(sums), first.sums["difference"], first.max_difference))
        for name in ("pg_loss", "clip/low", "clip/high", "entropy", "kl"):
            if name in sums:
                values[name] = sum(part[0][name] for part in everything) / sums["num_tokens"]
        # Only the first minibatch is judged by the very weights that sampled it.
        values["train_rollout_logprob_diff/mean"] = sum(part[1] for part in everything) / first.num_tokens
        values["train_rollout_logprob_diff/max"] = max(part[2] for part in everything)

    @torch.no_grad()
    def _probe(self, items: list[Lesson]) -> float | None:
        """KL(policy ‖ reference) on the tokens of some of the step's rollouts, by the policy that sampled them."""
        spread = max(1, len(items) // self._settings.kl_probe)
        chosen = [item for item in items[::spread] if item.rollout.tokens][: self._settings.kl_probe]
        if not chosen or self._reference is None:
            return None
        batch = pack_batch([(c.prompt, c.rollout.tokens) for c in chosen], device=self._frame.world.device)
        mine_M = torch.tensor([v for c in chosen for v in c.rollout.logprobs], device=self._frame.world.device)
        theirs_M = reference_logprobs(self._reference, batch, temperature=self._settings.temperature)
        return float(kl_estimate(mine_M, theirs_M).mean())
