"""The step of on-policy distillation: the student answers, the teacher judges every token of it, the student moves.

Letters: N tokens of all sequences, M answered ones among them, V vocabulary.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model_core.data.batches import pack_batch, passes_of_rank
from model_core.data.dataset import Row
from model_core.data.order import indices_of_step
from model_core.grpo import rollouts
from model_core.training.divergence import compare
from model_core.training.frame import Frame, Outcome
from model_core.training.start import Encoded, Start, encode_fitting

if TYPE_CHECKING:
    from model_core.phases.on_policy_distillation import OnPolicyDistillation
    from model_core.training.students import StudentStart


@dataclass(frozen=True)
class Problem:
    """A prompt, and the dataset's answer to it; without one it is empty."""

    row: Row
    prompt: list[int]
    demonstration: list[int]


def encode_problems(
    start: Start | StudentStart, rows: list[Row], settings: OnPolicyDistillation.Config, *, limit: int
) -> list[Problem]:
    """The rows in tokens. Raises ConfigError when a prompt with an answer is longer than student and teacher can read."""
    limit = min(limit, start.model_config.max_position_embeddings)
    asked = [replace(row, completion=None) for row in rows]
    longest = settings.max_new_tokens
    prompts = encode_fitting(start.tokenizer, asked, limit=limit, reserve=longest, field="phase_config.max_new_tokens")
    demonstrations: list[Encoded] = prompts
    if settings.on_policy_fraction < 1:
        demonstrations = encode_fitting(start.tokenizer, rows, limit=limit, field="phase_config.on_policy_fraction")
    return [Problem(row, prompt, told) for row, (prompt, _none), (_prompt, told) in zip(rows, prompts, demonstrations, strict=True)]


class OnPolicySteps:
    """Makes step after step on `problems`; every step is a function of the weights, the seed and its number."""

    def __init__(
        self, frame: Frame, settings: OnPolicyDistillation.Config, problems: Sequence[Problem], teacher: nn.Module
    ) -> None:
        self._frame, self._settings, self._problems, self._teacher = frame, settings, problems, teacher

    def __call__(self, step: int) -> Outcome:
        frame, settings = self._frame, self._settings
        chosen = [self._problems[i] for i in indices_of_step(
            step, num_examples=len(self._problems), batch_size=settings.batch_size, seed=frame.config.seed)]
        num_asked = self._num_asked(step, len(chosen))
        values: dict[str, float | None] = {"distil/on_policy_fraction": num_asked / len(chosen)}
        answers = [(one.prompt, one.demonstration) for one in chosen[num_asked:]]
        if num_asked:
            answers = [*self._answers(step, chosen[:num_asked], values), *answers]
        frame.reporter.stage("updating", step + 1)
        losses = DistillationLosses(answers, self._teacher, settings, frame)
        report = frame.update(losses.passes, step=step, num_sequences=len(answers))
        values |= {"lr": report.lr, "grad_norm": report.grad_norm, **report.values, **losses.told()}
        num_tokens = sum(len(prompt) + len(answer) for prompt, answer in answers)
        return Outcome(num_tokens=num_tokens if frame.world.is_first else 0, loss_share=report.loss, values=values)

    def _num_asked(self, step: int, num: int) -> int:
        """How many of the step's prompts the student answers; over all steps exactly their share."""
        share = self._settings.on_policy_fraction * num
        return int(share * (step + 1) + 0.5) - int(share * step + 0.5)

    def _answers(self, step: int, chosen: Sequence[Problem], values: dict[str, float | None]) -> list[Encoded]:
        """Lets the student answer, and adds what is to be told of it."""
        frame, settings = self._frame, self._settings
        frame.reporter.stage("sampling", step + 1)
        began = time.monotonic()
        sampler = frame.sampler()
        values["perf/sync_s"] = time.monotonic() - began
        sampling = rollouts.Sampling(1, settings.max_new_tokens, settings.temperature, settings.top_p)
        collected = rollouts.collect(
            sampler, frame.tokenizer, [(one.row, one.prompt) for one in chosen], sampling=sampling,
            rubric=frame.rubric.at(step + 1), world=frame.world, seed=frame.config.seed * 1_000_003 + step,
        )  # fmt: skip
        frame.keep_rollouts(step + 1, collected.groups)
        told = rollouts.metrics(collected.groups)
        not_told = ("adv/mean", "adv/std", "reward/frac_zero_std_groups")
        values |= {name: value for name, value in told.items() if name not in not_told} | collected.seconds
        values["temperature"] = settings.temperature
        return [(group.prompt_tokens, one.tokens) for group in collected.groups for one in group.rollouts]


class DistillationLosses:
    """The mean divergence over the answers' tokens of all ranks, as one callable a forward pass of this rank."""

    def __init__(
        self, answers: Sequence[Encoded], teacher: nn.Module, settings: OnPolicyDistillation.Config, frame: Frame
    ) -> None:
        self._teacher, self._beta, self._world = teacher, settings.beta, frame.world
        self._num_tokens = sum(len(answer) for _prompt, answer in answers)
        self._sums: Counter[str] = Counter()
        self._teacher_seconds = 0.0
        lengths = [len(prompt) + len(answer) for prompt, answer in answers]
        cut = passes_of_rank(lengths, max_tokens=settings.max_micro_tokens, rank=frame.world.rank, size=frame.world.size)
        self.passes = [_Pass(self, [answers[i] for i in indices], float(counts)) for indices, counts in cut]

    def loss(self, model: nn.Module, answers: Sequence[Encoded], weight: float) -> Tensor:
        """Of one pass; `weight` is 0 for one that does not count."""
        batch = pack_batch(answers, device=self._world.device)
        mask_1N = torch.full(batch.tokens_1N.shape, weight, device=self._world.device)
        began = time.monotonic()
        with torch.no_grad():
            teacher_MV = self._teacher(batch.tokens_1N, packing=batch.packing, at_M=batch.at_M)
        self._teacher_seconds += time.monotonic() - began
        student_MV = model(batch.tokens_1N, attention_mask=mask_1N, packing=batch.packing, at_M=batch.at_M)
        found = compare(student_MV, teacher_MV, beta=self._beta)
        for name, value_M in (
            ("distil/reverse_kl", found.reverse_kl_M), ("distil/forward_kl", found.forward_kl_M), ("entropy", found.entropy_M),
            ("distil/agreement", found.agrees_M),
        ):  # fmt: skip
            self._sums[name] += weight * float(value_M.sum())  # type: ignore[assignment]
        return weight * found.divergence_M.sum() / self._num_tokens

    def told(self) -> dict[str, float | None]:
        """Means over the tokens of all ranks, by the weights before the update, and the seconds of the slowest teacher."""
        everything = self._world.gather((dict(self._sums), self._teacher_seconds))
        means: dict[str, float | None] = {
            name: sum(sums[name] for sums, _seconds in everything) / self._num_tokens for name in self._sums
        }
        return means | {"perf/teacher_s": max(seconds for _sums, seconds in everything)}


@dataclass(frozen=True)
class _Pass:
    losses: DistillationLosses
    answers: list[Encoded]
    weight: float

    def __call__(self, model: nn.Module) -> Tensor:
        return self.losses.loss(model, self.answers, self.weight)
