"""One step of GRPO: sample, score, keep, update, tell."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from torch import nn

from model_core.curriculum import Curriculum
from model_core.data.batches import pack_batch
from model_core.data.dataset import Row
from model_core.errors import EngineError
from model_core.grpo import rollouts
from model_core.grpo.engine_rollouts import EngineRollouts
from model_core.grpo.loss import kl_estimate
from model_core.grpo.prompts import InTurn, Prompts, pass_rate
from model_core.grpo.update import (
    Lesson,
    MinibatchLosses,
    Objective,
    lessons,
    minibatches,
    reference_logprobs,
    with_trainer_logprobs,
)
from model_core.rollout import Sampler
from model_core.rollout.remote import RemoteEngine
from model_core.training.frame import Frame, Outcome

if TYPE_CHECKING:
    from model_core.phases.reinforcement import Reinforcement


GUARD_STEPS = 3
"""Steps in a row above `max_logprob_difference` that end the run."""


PROGRESS, REFERENCE = "reinforcement.json", "reference.safetensors"
"""What a checkpoint keeps of the phase in its `state/`; the second only when the reference was replaced."""


class PolicySteps:
    """Makes step after step on `problems`; `reference` is the frozen start of the phase, if KL is wanted.

    A frame that goes on from a checkpoint goes on with the prompts, the reference and the guard's count of that moment.
    """

    def __init__(
        self, frame: Frame, settings: Reinforcement.Config, problems: Sequence[tuple[Row, list[int]]],
        reference: nn.Module | None,
    ) -> None:
        self._frame, self._settings, self._problems = frame, settings, problems
        self._reference = reference.to(frame.world.device).eval() if reference is not None else None
        self._num_apart = 0
        """Steps in a row in which sampler and trainer disagreed too much."""
        self._prompts: Prompts = InTurn(len(problems), per_step=settings.prompts_per_step, seed=frame.config.seed)
        if settings.curriculum == "pass_rate":
            self._prompts = Curriculum([row.level for row, _tokens in problems], seed=frame.config.seed)
        self._engine = EngineRollouts.of(frame, settings, problems) if settings.rollout == "endpoint" else None
        if frame.context.paths.resume_from:
            self._resume(Path(frame.context.paths.resume_from) / "state")
        self._note_progress()

    def __call__(self, step: int) -> Outcome | None:
        """Makes the step; None when the engine that samples cannot be trusted or the run is to end, and nothing was done."""
        frame, settings = self._frame, self._settings
        collected = self._collect(step)
        if collected.failure:
            frame.ask_to_end(f"Step {step + 1} was given up, for {settings.rollout_url} gave it no rollouts: "
                             f"{collected.failure.rstrip('.')}.")
            return None
        if settings.reference_every and step and step % settings.reference_every == 0:
            self._replace_reference()
        frame.keep_rollouts(step + 1, collected.groups)
        frame.reporter.stage("updating", step + 1)
        items = lessons(collected.groups, with_flat=settings.advantage == "batch")
        values: dict[str, float | None] = {
            **rollouts.metrics(collected.groups), **collected.seconds, "temperature": self._temperature(step),
            "refilled_prompts": float(len(collected.groups) - settings.prompts_per_step),
        }  # fmt: skip
        if not items:
            frame.reporter.emit("warning", message=(
                f"Step {step + 1} taught nothing: in every group the rewards were equal, or could not be told."))
        began = time.monotonic()
        if settings.importance_cap and items:
            items = self._judged(items, step)
        judged_seconds = time.monotonic() - began
        loss = self._update(items, step, values) if items else 0.0
        began = time.monotonic()
        if settings.kl_probe and not settings.kl_coef:
            every = [Lesson(g.prompt_tokens, r) for g in collected.groups for r in g.rollouts]
            values["kl"] = self._probe(every, temperature=self._temperature(step))
        values["perf/logprob_s"] = judged_seconds + time.monotonic() - began
        self._guard(step, values.get("train_rollout_logprob_diff/mean"))
        self._note_progress()
        num_tokens = sum(len(g.prompt_tokens) + len(r.tokens) for g in collected.groups for r in g.rollouts)
        return Outcome(num_tokens=num_tokens if frame.world.is_first else 0, loss_share=loss, values=values)

    def close(self) -> None:
        """Leaves nothing behind that only steps need."""
        if self._engine is not None:
            self._engine.close()

    def _collect(self, step: int) -> rollouts.Collected:
        """The step's groups with their advantages; flat ones are made up for by more prompts, in at most `refill_rounds`."""
        frame, settings = self._frame, self._settings
        frame.reporter.stage("sampling", step + 1)
        began = time.monotonic()
        try:
            sampler = frame.sampler() if self._engine is None else self._engine.sampler(step)
        except EngineError as error:
            return rollouts.Collected([], failure=error.message)
        synced = time.monotonic() - began
        chosen = self._prompts.choose(step, settings.prompts_per_step)
        collected = self._sample(sampler, step, 0, chosen)
        if collected.failure:
            return collected
        for number in range(1, settings.refill_rounds + 1):
            num_extra = len(collected.groups) - settings.prompts_per_step
            missing = sum(group.is_flat for group in collected.groups) - num_extra
            if missing <= 0:
                break
            asked, chosen = len(chosen), self._prompts.choose(step, len(chosen) + missing)
            more = self._sample(sampler, step, number, chosen[asked:])
            if more.failure:
                return more
            seconds = {name: value + more.seconds[name] for name, value in collected.seconds.items()}
            collected = rollouts.Collected([*collected.groups, *more.groups], seconds)
        self._prompts.update(chosen, [pass_rate(group) for group in collected.groups])
        groups = rollouts.with_advantages(collected.groups, settings.advantage)
        return rollouts.Collected(groups, {**collected.seconds, "perf/sync_s": synced})

    def _sample(self, sampler: Sampler | RemoteEngine, step: int, number: int, chosen: Sequence[int]) -> rollouts.Collected:
        """Asks the prompts `chosen`, each round with a seed of its own."""
        frame, settings = self._frame, self._settings
        sampling = rollouts.Sampling(settings.group_size, settings.max_new_tokens, self._temperature(step), settings.top_p)
        return rollouts.collect(
            sampler, frame.tokenizer, [self._problems[i] for i in chosen], sampling=sampling, rubric=frame.rubric.at(step + 1),
            world=frame.world, seed=(frame.config.seed + 500_009 * number) * 1_000_003 + step,
        )

    def _judged(self, items: list[Lesson], step: int) -> list[Lesson]:
        """The lessons with the trainer's own log-probabilities, by the weights that sampled them."""
        return with_trainer_logprobs(
            items, self._frame.policy(), temperature=self._temperature(step), max_tokens=self._settings.max_micro_tokens,
            world=self._frame.world,
        )  # fmt: skip

    def _temperature(self, step: int) -> float:
        """Goes in a line from `temperature` in the first step to `final_temperature` in the last."""
        settings = self._settings
        if settings.final_temperature is None or settings.steps == 1:
            return settings.temperature
        return settings.temperature + (settings.final_temperature - settings.temperature) * step / (settings.steps - 1)

    def _objective(self, step: int) -> Objective:
        settings = self._settings
        return Objective(
            settings.clip_low, settings.clip_high, settings.kl_coef, self._temperature(step), settings.ratio,
            settings.surrogate, settings.loss_mean, settings.max_new_tokens, settings.kl_estimator, settings.importance_cap,
        )

    def _replace_reference(self) -> None:
        """The policy of this moment becomes the reference, which checkpoints keep from here on."""
        assert self._reference is not None, "the Config refuses a replacement without a reference"
        self._reference.load_state_dict(self._frame.policy().state_dict())
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._reference.state_dict().items()}
        self._frame.extra_state[REFERENCE] = safetensors.torch.save(tensors)

    def _note_progress(self) -> None:
        """Hands over what the next checkpoint is to keep."""
        progress = {"num_apart": self._num_apart, "prompts": self._prompts.state()}
        self._frame.extra_state[PROGRESS] = json.dumps(progress)

    def _resume(self, state: Path) -> None:
        if (state / PROGRESS).exists():  # not in checkpoints of before there was a curriculum
            progress = json.loads((state / PROGRESS).read_text())
            self._num_apart = progress["num_apart"]
            self._prompts.load(progress["prompts"])
        if self._reference is not None and (state / REFERENCE).exists():
            stored = (state / REFERENCE).read_bytes()
            self._reference.load_state_dict(safetensors.torch.load(stored))
            self._frame.extra_state[REFERENCE] = stored

    def _guard(self, step: int, difference: float | None) -> None:
        """Has the run end when trainer and sampler have long disagreed about the very same weights."""
        frame, limit = self._frame, self._settings.max_logprob_difference
        if not limit or difference is None:
            return
        self._num_apart = self._num_apart + 1 if difference > limit else 0
        if self._num_apart >= GUARD_STEPS:
            frame.ask_to_end(
                f"Trainer and sampler differ by {difference:.3g} nats a token, more than max_logprob_difference {limit:g}, for "
                f"{self._num_apart} steps up to step {step + 1}: what is learnt is no longer what is sampled.")

    def _update(self, items: list[Lesson], step: int, values: dict[str, float | None]) -> float:
        """Updates on all minibatches, adds what was seen to `values`, returns this rank's mean loss."""
        frame, settings, seed = self._frame, self._settings, self._frame.config.seed
        sums: Counter[str] = Counter()
        share, num_updates, ages, first = 0.0, 0, 0, None
        for epoch in range(settings.num_epochs):
            for part in minibatches(items, num=settings.num_minibatches, seed=seed + 7919 * step + epoch):
                losses = MinibatchLosses(part, self._objective(step), max_tokens=settings.max_micro_tokens,
                                         world=frame.world, reference=self._reference)
                report = frame.update(losses.callables, step=step, num_sequences=len(part))
                first = first or losses
                sums.update(losses.sums)
                sums["num_tokens"] += losses.num_tokens
                ages += num_updates * len(part)
                share, num_updates = share + report.loss, num_updates + 1
                values |= {"lr": report.lr, "grad_norm": report.grad_norm, **report.values}
        assert first is not None
        self._add_sums(values, sums, first)
        values["staleness/avg_age"] = ages / (settings.num_epochs * len(items))
        return share / num_updates

    def _add_sums(self, values: dict[str, float | None], sums: Counter[str], first: MinibatchLosses) -> None:
        everything = self._frame.world.gather(
            (dict(sums), first.sums["difference"], first.max_difference, first.sums["ratio"], first.max_ratio, first.min_ratio))
        for name in ("pg_loss", "clip/low", "clip/high", "entropy", "kl"):
            if name in sums:
                values[name] = sum(part[0][name] for part in everything) / sums["num_tokens"]
        # Only the first minibatch is judged by the very weights that sampled it.
        values["train_rollout_logprob_diff/mean"] = sum(part[1] for part in everything) / first.num_tokens
        values["train_rollout_logprob_diff/max"] = max(part[2] for part in everything)
        values["train_rollout_ratio/mean"] = sum(part[3] for part in everything) / first.num_tokens
        values["train_rollout_ratio/max"] = max(part[4] for part in everything)
        values["train_rollout_ratio/min"] = min(part[5] for part in everything)

    @torch.no_grad()
    def _probe(self, items: list[Lesson], *, temperature: float) -> float | None:
        """KL(policy ‖ reference) on the tokens of some of the step's rollouts, by the policy that sampled them."""
        spread = max(1, len(items) // self._settings.kl_probe)
        chosen = [item for item in items[::spread] if item.rollout.tokens][: self._settings.kl_probe]
        if not chosen or self._reference is None:
            return None
        batch = pack_batch([(c.prompt, c.rollout.tokens) for c in chosen], device=self._frame.world.device)
        mine_M = torch.tensor([v for c in chosen for v in c.rollout.logprobs], device=self._frame.world.device)
        theirs_M = reference_logprobs(self._reference, batch, temperature=temperature)
        return float(kl_estimate(mine_M, theirs_M).mean())
