"""Measuring a model on held-out problems: what the gates are decided on.

Every problem is answered once; accuracy has a Wilson interval, quality (the weighted reward) a bootstrap interval. A
problem that could not be scored is counted as such and left out of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from model_core.config import HeldOutConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import decode, prompt_ids
from model_core.evaluation.statistics import bootstrap_mean, measured, wilson
from model_core.rewards._types import Sample
from model_core.rollout import Sampler
from model_core.scoring import Rubric, Scored
from model_core.training.world import World

_NUM_EXAMPLES = 8


def measure(
    sampler: Sampler, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], *, config: HeldOutConfig,
    rubric: Rubric, world: World, seed: int,
) -> dict[str, Any]:
    """Answers `rows`, each rank its share, and returns the payload of an `evaluation` event without step and when."""
    answered = answer(sampler, tokenizer, rows[world.rank :: world.size], config=config, rubric=rubric, seed=seed)
    shares = world.gather(answered)
    in_order = [shares[place % world.size][place // world.size] for place in range(len(rows))]
    return summary(in_order, seed=seed)


def answer(
    sampler: Sampler, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], *, config: HeldOutConfig,
    rubric: Rubric, seed: int,
) -> list[tuple[Sample, Scored]]:
    """One scored answer to each of `rows`."""
    if not rows:
        return []
    groups = sampler.generate(
        [prompt_ids(tokenizer, row.prompt) for row in rows], max_new_tokens=config.max_new_tokens,
        temperature=config.temperature, seed=seed,
    )
    samples = [
        Sample(prompt=row.prompt, completion=decode(tokenizer, completion.tokens), expected=row.answer, task=row.task,
               num_tokens=len(completion.tokens), finish_reason=completion.finish_reason, meta=row.meta)
        for row, (completion,) in zip(rows, groups, strict=True)
    ]
    return list(zip(samples, rubric.score(samples), strict=True))


def summary(answered: Sequence[tuple[Sample, Scored]], *, seed: int) -> dict[str, Any]:
    """Means and intervals; None where nothing could be judged."""
    decided = [scored.correct for _sample, scored in answered if scored.correct is not None]
    totals = [scored.total for _sample, scored in answered if scored.total is not None]
    accuracy_low, accuracy_high = wilson(sum(decided), len(decided)) if decided else (None, None)
    quality, quality_low, quality_high = bootstrap_mean(totals, seed) if totals else (None, None, None)
    names = sorted({name for _sample, scored in answered for name in scored.components})
    measures = _measures(answered, names, decided, totals)
    if quality is not None:
        measures["quality"] |= {"low": quality_low, "high": quality_high}
    return {
        "accuracy": sum(decided) / len(decided) if decided else None,
        "accuracy_low": accuracy_low, "accuracy_high": accuracy_high,
        "quality": quality, "quality_low": quality_low, "quality_high": quality_high,
        "num_problems": len(answered), "components": {name: measures[name]["value"] for name in names}, "measures": measures,
        "unscored": len(answered) - len(totals), "examples": [_example(*pair) for pair in answered[:_NUM_EXAMPLES]],
    }


def _measures(
    answered: Sequence[tuple[Sample, Scored]], names: Sequence[str], decided: Sequence[bool], totals: Sequence[float]
) -> dict[str, dict[str, float | int | None]]:
    """Every metric that a gate may compare, the components `names` among them."""
    values: dict[str, list[float]] = {
        name: [v for _sample, scored in answered if (v := scored.components.get(name)) is not None] for name in names
    }
    values |= {
        "quality": list(totals), "accuracy": [float(one) for one in decided],
        "length": [float(sample.num_tokens) for sample, _scored in answered],
        "truncated": [float(sample.finish_reason == "length") for sample, _scored in answered],
    }
    return {name: measured(known) for name, known in values.items()}


def _example(sample: Sample, scored: Scored) -> dict[str, Any]:
    return {
        "prompt": sample.prompt, "completion": sample.completion, "expected": sample.expected,
        "correct": scored.correct, "reward": scored.total, "components": scored.components,
    }
