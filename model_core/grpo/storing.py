"""Rollouts on the disk: one gzipped JSON line a group, all of a step's groups or, when they are many, a sample by rule.

The rule is a function of the groups and the seed. What a line holds is read by `model_core.sources.rollouts` too.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from model_core.grpo.rollouts import Group

MAX_ROLLOUTS = 8192
"""Most completions that are stored of one step."""
MAX_BYTES = 64 << 20
"""Most bytes of lines, before they are compressed, that are stored of one step."""


def store(
    path: Path, groups: Sequence[Group], *, seed: int, max_rollouts: int = MAX_ROLLOUTS, max_bytes: int = MAX_BYTES
) -> int:
    """Writes the groups, in their order, and returns how many; the same bytes for the same groups; the file appears whole.

    A group is stored whole or not at all. When not all fit, those with the best and the worst mean reward and a flat one
    come first, however large they are, then others drawn by `seed`; every line then has `sampled_from` with the counts.
    """
    lines = [_line(group) for group in groups]
    encoded = [_bytes(line) for line in lines]
    kept = _chosen(groups, [len(line) for line in encoded], seed, max_rollouts, max_bytes)
    if len(kept) < len(groups):
        counts = {"num_groups": len(groups), "num_rollouts": sum(len(group.rollouts) for group in groups)}
        encoded = [_bytes({**line, "sampled_from": counts}) for line in lines]
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
        for place in kept:
            file.write(encoded[place])
    temporary.replace(path)
    return len(kept)


def _chosen(groups: Sequence[Group], sizes: Sequence[int], seed: int, max_rollouts: int, max_bytes: int) -> list[int]:
    """The places of the groups to store, in order."""
    numbers = [len(group.rollouts) for group in groups]
    if sum(numbers) <= max_rollouts and sum(sizes) <= max_bytes:
        return list(range(len(groups)))
    taken = _telling(groups)
    others = [place for place in range(len(groups)) if place not in taken]
    random.Random(seed).shuffle(others)
    for place in others:
        with_it = [*taken, place]
        if sum(numbers[one] for one in with_it) <= max_rollouts and sum(sizes[one] for one in with_it) <= max_bytes:
            taken = with_it
    return sorted(taken)


def _telling(groups: Sequence[Group]) -> list[int]:
    """The groups with the best and the worst mean reward, and the first flat one."""
    means = {
        place: fmean(known) for place, group in enumerate(groups) if (known := [r for r in group.rewards if r is not None])
    }  # fmt: skip
    found = [max(means, key=lambda place: means[place]), min(means, key=lambda place: means[place])] if means else []
    found += [place for place, group in enumerate(groups) if group.is_flat][:1]
    return list(dict.fromkeys(found))


def _bytes(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _line(group: Group) -> dict[str, Any]:
    return {
        "prompt": group.row.prompt, "answer": group.row.answer, "task": group.row.task, "meta": group.row.meta,
        "completions": [
            {
                "text": r.text, "num_tokens": len(r.tokens), "finish_reason": r.finish_reason,
                "correct": r.scored.correct, "reward": r.scored.total, "components": r.scored.components,
                "advantage": r.advantage,
            }
            for r in group.rollouts
        ],
    }  # fmt: skip
