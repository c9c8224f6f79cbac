"""The chains that rejection sampling keeps: right answer, no false equation, the shortest of its prompt."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from model_core.data.dataset import Row, read_rows
from model_core.errors import DataError
from model_core.grpo import rollouts
from model_core.grpo.rollouts import Group, Rollout
from model_core.rollout import Sampler
from model_core.tasks import TASKS
from model_core.training.frame import Frame
from model_core.training.start import encode_fitting, load_start

if TYPE_CHECKING:
    from model_core.phases.rejection_sampling import RejectionSampling

_END_THINK = "</think>"


def chains_of(frame: Frame, settings: RejectionSampling.Config, rows: list[Row]) -> tuple[list[Row], int]:
    """The rows to train on, and the tokens that sampling them took; a resumed attempt takes those that it had.

    Raises DataError when no chain could be kept.
    """
    resume_from = frame.context.paths.resume_from
    if resume_from:
        chains = read_rows(Path(resume_from) / "state", "chains")
        num_tokens = 0
    else:
        chains, num_tokens = _sample(frame, settings, rows)
    if not chains:
        raise DataError("Not one sampled chain was right, so there is nothing to learn from. Train the model that "
                        "samples further, or draw more samples.", field="phase_config.num_samples")
    lines = [json.dumps({"prompt": row.prompt, "completion": row.completion, "answer": row.answer, "task": row.task})
             for row in chains]
    frame.extra_state["chains.jsonl"] = "".join(line + "\n" for line in lines)
    return chains, num_tokens


def best_chain(group: Group) -> Rollout | None:
    """The shortest completion that is right, came to its end and has no false equation; None when there is none."""
    good = [rollout for rollout in group.rollouts if _is_good(group.row, rollout)]
    return min(good, key=lambda rollout: len(rollout.tokens), default=None)


def _is_good(row: Row, rollout: Rollout) -> bool:
    if not rollout.scored.correct or rollout.finish_reason != "stop":
        return False
    if not row.task:
        return True
    reasoning = rollout.text.partition("<think>")[2].partition(_END_THINK)[0]
    _right, wrong = TASKS.get(row.task)().check_steps(row.prompt, reasoning)
    return bool(wrong == 0)


def _sample(frame: Frame, settings: RejectionSampling.Config, rows: Sequence[Row]) -> tuple[list[Row], int]:
    source = load_start(frame.context.paths.rollouts_from or frame.context.paths.start_from or "")
    encoded = encode_fitting(
        source.tokenizer, [replace(row, completion=None) for row in rows], reserve=settings.max_new_tokens,
        limit=source.model_config.max_position_embeddings, field="phase_config.max_new_tokens",
    )
    sampler = Sampler(source.model.to(frame.world.device), eos_token_id=int(source.tokenizer.eos_token_id),
                      pad_token_id=int(source.tokenizer.pad_token_id))
    sampling = rollouts.Sampling(settings.num_samples, settings.max_new_tokens, settings.temperature, settings.top_p)
    chains: list[Row] = []
    num_tokens, began = 0, time.monotonic()
    frame.reporter.stage("sampling", 0)
    for number, offset in enumerate(range(0, len(rows), settings.prompts_per_round)):
        part = range(offset, min(offset + settings.prompts_per_round, len(rows)))
        collected = rollouts.collect(
            sampler, source.tokenizer, [(rows[i], encoded[i][0]) for i in part], sampling=sampling,
            rubric=frame.rubric, world=frame.world, seed=frame.config.seed * 1_000_003 + number,
        )
        chains += [_row(group, best) for group in collected.groups if (best := best_chain(group))]
        num_tokens += sum(len(g.prompt_tokens) + len(r.tokens) for g in collected.groups for r in g.rollouts)
        frame.keep_rollouts(number, collected.groups)
        done = max(len(chains) / settings.num_chains, (part.stop) / len(rows))
        frame.reporter.progress("sampling", len(chains), settings.num_chains, seconds=time.monotonic() - began,
                                done=min(1.0, done))
        if len(chains) >= settings.num_chains or frame.wants_to_end():
            break
    return chains[: settings.num_chains], num_tokens


def _row(group: Group, best: Rollout) -> Row:
    return Row(prompt=group.row.prompt, completion=best.text, answer=group.row.answer, task=group.row.task)
