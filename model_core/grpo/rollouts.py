"""Rollouts: groups of completions of one prompt with their rewards and advantages; how they are made and told."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerFast

from model_core.config.variants import Advantage
from model_core.data.dataset import Row
from model_core.data.tokenizer import decode
from model_core.errors import EngineError
from model_core.grpo.advantages import advantages_of, is_flat
from model_core.rewards._types import Sample
from model_core.rollout import Sampler
from model_core.rollout.remote import RemoteEngine
from model_core.scoring import Rubric, Scored
from model_core.training.world import World

ABORTED = "abort"
"""`finish_reason` of a completion that an engine did not finish: it is unscored, and no length of a completion."""


@dataclass(frozen=True)
class Rollout:
    """One completion as it was sampled, scored and compared with its group."""

    tokens: list[int]
    logprobs: list[float]
    finish_reason: str
    text: str
    scored: Scored
    advantage: float | None = None


@dataclass(frozen=True)
class Group:
    """All completions of one prompt."""

    row: Row
    prompt_tokens: list[int]
    rollouts: list[Rollout]

    @property
    def rewards(self) -> list[float | None]:
        return [rollout.scored.total for rollout in self.rollouts]

    @property
    def is_flat(self) -> bool:
        """Whether its rewards are all equal."""
        return is_flat(self.rewards)


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    num_samples: int
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Collected:
    """The groups of all ranks in the order of their prompts, and the seconds of the slowest rank."""

    groups: list[Group]
    seconds: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    """Why an engine gave a rank nothing to learn from; then there are no groups."""


def collect(
    sampler: Sampler | RemoteEngine, tokenizer: PreTrainedTokenizerFast, problems: Sequence[tuple[Row, list[int]]], *,
    sampling: Sampling, rubric: Rubric, world: World, seed: int,
) -> Collected:
    """Samples and scores every problem, each rank its share; all ranks get all groups, still without advantages."""
    began = time.monotonic()
    mine = problems[world.rank :: world.size]
    failure = ""
    try:
        drawn = sampler.generate(
            [tokens for _row, tokens in mine], num_samples=sampling.num_samples, max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature, top_p=sampling.top_p, seed=seed * world.size + world.rank,
        ) if mine else []
    except EngineError as error:  # all ranks have to hear of it
        mine, drawn, failure = [], [], error.message
    sampled = time.monotonic()
    groups = _scored_groups(tokenizer, mine, drawn, rubric)
    seconds = {"perf/rollout_s": sampled - began, "perf/reward_s": time.monotonic() - sampled}
    everything = world.gather((groups, seconds, failure))
    failures = [told for _groups, _seconds, told in everything if told]
    if failures:
        return Collected([], {}, failures[0])
    ordered: list[Group] = [everything[i % world.size][0][i // world.size] for i in range(len(problems))]
    slowest = {name: max(part[1][name] for part in everything) for name in seconds}
    return Collected(ordered, slowest)


def with_advantages(groups: Sequence[Group], kind: Advantage) -> list[Group]:
    """The groups of a step with the advantage of each completion."""
    everyone = advantages_of([group.rewards for group in groups], kind)
    return [
        replace(group, rollouts=[replace(r, advantage=a) for r, a in zip(group.rollouts, advantages, strict=True)])
        for group, advantages in zip(groups, everyone, strict=True)
    ]


def metrics(groups: Sequence[Group]) -> dict[str, float | None]:
    """The scalars of `model_core.events.METRICS` that rollouts alone decide."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    totals = [r.scored.total for r in rollouts if r.scored.total is not None]
    correct = [r.scored.correct for r in rollouts if r.scored.correct is not None]
    advantages = [r.advantage for r in rollouts if r.advantage is not None]
    lengths = [len(r.tokens) for r in rollouts if r.finish_reason != ABORTED]
    values: dict[str, float | None] = {
        "reward/total": _mean(totals), "reward/std": _deviation(totals),
        "reward/frac_zero_std_groups": _mean([float(group.is_flat) for group in groups]),
        "adv/mean": _mean(advantages), "adv/std": _deviation(advantages),
        "len/mean": _mean([float(n) for n in lengths]), "len/max": float(max(lengths, default=0)),
        "len/min": float(min(lengths, default=0)),
        "len/mean_terminated": _mean([float(len(r.tokens)) for r in rollouts if r.finish_reason == "stop"]),
        "truncated_ratio": _mean([float(r.finish_reason == "length") for r in rollouts]),
        "aborted_ratio": _mean([float(r.finish_reason not in {"stop", "length"}) for r in rollouts]),
        "accuracy/rollouts": _mean([float(c) for c in correct]),
    }
    for name in sorted({name for r in rollouts for name in r.scored.components}):
        known = [v for r in rollouts if (v := r.scored.components.get(name)) is not None]
        values[f"reward/{name}/mean"], values[f"reward/{name}/std"] = _mean(known), _deviation(known)
        values[f"reward/{name}/unscored"] = float(len(rollouts) - len(known))
    return values


def _scored_groups(
    tokenizer: PreTrainedTokenizerFast, problems: Sequence[tuple[Row, list[int]]], drawn: Sequence[Sequence[Any]],
    rubric: Rubric,
) -> list[Group]:
    samples = [
        Sample(prompt=row.prompt, completion=decode(tokenizer, completion.tokens), expected=row.answer, task=row.task,
               num_tokens=len(completion.tokens), finish_reason=completion.finish_reason, meta=row.meta)
        for (row, _tokens), completions in zip(problems, drawn, strict=True) for completion in completions
    ]
    whole = iter(rubric.score([sample for sample in samples if sample.finish_reason != ABORTED]))
    aborted = Scored(None, dict.fromkeys(rubric.weights), None, "The engine did not finish it.")
    judged = iter([(sample, aborted if sample.finish_reason == ABORTED else next(whole)) for sample in samples])
    groups = []
    for (row, prompt_tokens), completions in zip(problems, drawn, strict=True):
        rollouts = []
        for completion in completions:
            sample, scored = next(judged)
            rollouts.append(Rollout(completion.tokens, completion.logprobs, completion.finish_reason,
                                    sample.completion, scored))
        groups.append(Group(row, prompt_tokens, rollouts))
    return groups


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.pstdev(values) if values else None
