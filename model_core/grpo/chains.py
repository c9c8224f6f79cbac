"""The chains that rejection sampling keeps, drawn round by round; `keeping` says which those are.

What was kept and which round is next lie in the checkpoint's `state/`, so that a resumed attempt keeps the very chains
that one never stopped would have kept.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from model_core.data.dataset import Row, read_rows
from model_core.errors import DataError
from model_core.grpo import rollouts
from model_core.grpo.keeping import keep
from model_core.grpo.rollouts import Group, Rollout
from model_core.rollout import Sampler
from model_core.training.families import family_of
from model_core.training.frame import Frame
from model_core.training.start import Encoded, Start, encode_fitting, load_start

if TYPE_CHECKING:
    from model_core.phases.rejection_sampling import RejectionSampling

CHAINS, PROGRESS = "chains.jsonl", "sampling.json"


@dataclass
class Kept:
    """How far sampling is: the chains so far, the first row that was not asked yet, whether no more is wanted."""

    chains: list[Row] = field(default_factory=list)
    next_row: int = 0
    is_done: bool = False
    refused: Counter[str] = field(default_factory=Counter)
    """How many completions were not kept, by reason."""

    def files(self) -> dict[str, str]:
        """What a checkpoint keeps of it."""
        lines = [json.dumps({"prompt": row.prompt, "completion": row.completion, "answer": row.answer, "task": row.task})
                 for row in self.chains]
        progress = {"next_row": self.next_row, "is_done": self.is_done, "refused": dict(sorted(self.refused.items()))}
        return {CHAINS: "".join(line + "\n" for line in lines), PROGRESS: json.dumps(progress)}

    @classmethod
    def read(cls, directory: Path) -> Kept:
        """What an earlier attempt had."""
        progress = json.loads((directory / PROGRESS).read_text())
        return cls(read_rows(directory, Path(CHAINS).stem), progress["next_row"], progress["is_done"],
                   Counter(progress.get("refused", {})))


def chains_of(frame: Frame, settings: RejectionSampling.Config, rows: list[Row]) -> list[Row]:
    """The rows to train on; none, or not all, when the run is to end first. Counts the tokens that sampling took.

    Raises DataError when every prompt was asked and no chain could be kept.
    """
    resume_from = frame.context.paths.resume_from
    kept = Kept.read(Path(resume_from) / "state") if resume_from else Kept()
    if not kept.is_done:
        _sample(frame, settings, rows, kept)
    if kept.is_done and not kept.chains:
        raise DataError(f"Not one sampled chain could be kept ({_told(kept.refused)}), so there is nothing to learn from. "
                        "Train the model that samples further, or draw more samples.", field="phase_config.num_samples")
    frame.extra_state.update(kept.files())
    frame.reporter.emit("chains", num_prompts=kept.next_row, num_kept=len(kept.chains), refused=dict(kept.refused.most_common()))
    return kept.chains


def _sample(frame: Frame, settings: RejectionSampling.Config, rows: Sequence[Row], kept: Kept) -> None:
    """Asks the rows that are left, round by round, until enough is kept or the run is to end."""
    source = load_start(frame.context.paths.rollouts_from or frame.context.paths.start_from or "")
    encoded = encode_fitting(
        source.tokenizer, [replace(row, completion=None) for row in rows], reserve=settings.max_new_tokens,
        limit=source.model_config.max_position_embeddings, field="phase_config.max_new_tokens",
    )
    sampler = family_of(source.model_config).sampler(source.model.to(frame.world.device), source.tokenizer)
    frame.reporter.stage("sampling", 0)
    began, began_at = time.monotonic(), _fraction(kept, settings, rows)
    while True:
        kept.is_done = len(kept.chains) >= settings.num_chains or kept.next_row >= len(rows)
        frame.extra_state.update(kept.files())
        if kept.is_done or frame.wants_to_end(save_when_due=True):
            break
        _one_round(frame, settings, rows, encoded, sampler, source, kept)
        frame.reporter.progress(
            "sampling", len(kept.chains), settings.num_chains, seconds=time.monotonic() - began,
            fraction=_fraction(kept, settings, rows), began_at=began_at,
        )


def _one_round(
    frame: Frame, settings: RejectionSampling.Config, rows: Sequence[Row], encoded: Sequence[Encoded], sampler: Sampler,
    source: Start, kept: Kept,
) -> None:
    number = kept.next_row // settings.prompts_per_round
    part = range(kept.next_row, min(kept.next_row + settings.prompts_per_round, len(rows)))
    collected = rollouts.collect(
        sampler, source.tokenizer, [(rows[i], encoded[i][0]) for i in part], rubric=frame.rubric, world=frame.world,
        sampling=rollouts.Sampling(settings.num_samples, settings.max_new_tokens, settings.temperature, settings.top_p),
        seed=frame.config.seed * 1_000_003 + number,
    )
    for group in collected.groups:
        good, refused = keep(group, settings)
        kept.chains += [_row(group, one) for one in good]
        kept.refused += refused
    kept.chains = kept.chains[: settings.num_chains]
    kept.next_row = part.stop
    frame.counters.tokens += sum(len(g.prompt_tokens) + len(r.tokens) for g in collected.groups for r in g.rollouts)
    frame.keep_rollouts(number, collected.groups)


def _told(refused: Counter[str]) -> str:
    return ", ".join(f"{reason}: {num}" for reason, num in refused.most_common()) or "none was drawn"


def _fraction(kept: Kept, settings: RejectionSampling.Config, rows: Sequence[Row]) -> float:
    return min(1.0, max(len(kept.chains) / settings.num_chains, kept.next_row / len(rows)))


def with_general(chains: list[Row], rows: Sequence[Row], *, fraction: float, seed: int) -> list[Row]:
    """`chains` and so many other demonstrations that these are `fraction` of all; drawn from `rows` by `seed`.

    Other demonstrations are the rows with a completion whose answer nobody can verify. Raises DataError without any; fewer
    than wanted are all taken.
    """
    if not fraction:
        return chains
    general = [row for row in rows if row.completion and row.answer is None]
    if not general:
        raise DataError("general_fraction asks for rows with a completion and no answer, and the dataset has none. Set it to 0, "
                        "or prepare a dataset that mixes such rows in.", field="phase_config.general_fraction")
    wanted = round(len(chains) * fraction / (1 - fraction))
    return chains + random.Random(seed).sample(general, min(wanted, len(general)))


def _row(group: Group, best: Rollout) -> Row:
    return Row(prompt=group.row.prompt, completion=best.text, answer=group.row.answer, task=group.row.task)
