"""Scores stored rollouts again, under another reward: what a change of the weights would have meant, without sampling anew.

`rescore` asks the components again, `reweigh` sums what they have said with other weights. Imports without torch.
What a stored line holds is written by `model_core.grpo.storing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from model_core.config import RewardConfig
from model_core.errors import DataError
from model_core.grpo.advantages import is_flat
from model_core.rewards._types import Sample
from model_core.scoring import Rubric, Scored
from model_core.sources.jsonl import objects
from model_core.sources.rollouts import FILES

__all__ = ["best", "is_flat", "rescore", "reweigh"]
_STEP = re.compile(r"step_(\d+)")


def rescore(samples: Path, reward: RewardConfig) -> Iterator[dict[str, Any]]:
    """One result a stored step, in order: `step`, mean `before` and `after`, how many groups would choose another best, and
    the groups with old and new totals and components.

    Raises DataError when there are no rollouts or a line is none.
    """
    files = sorted(samples.glob(FILES))
    if not files:
        raise DataError(f"{samples} has no rollouts ({FILES}).", field="run_dir")
    rubric = Rubric(reward)
    try:
        for file in files:
            yield _step(file, rubric)
    finally:
        rubric.close()


def reweigh(groups: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> dict[str, Any]:
    """One stored step under other weights of the components that scored it: mean `before` and `after`, how many rollouts are
    `unscored`, how many groups teach nothing (`flat_before`, `flat_after`), in how many `other_best` would be the best, and
    each group with both totals. Equal to `rescore` with these weights; a weight of 0 leaves its component out.
    """
    asked = {name: weight for name, weight in weights.items() if weight}
    told = []
    for group in groups:
        after = [_total(one.get("components") or {}, asked) for one in group["completions"]]
        told.append({
            "prompt": group["prompt"], "answer": group.get("answer"),
            "completions": [
                {"text": one["text"], "before": one.get("reward"), "after": total}
                for one, total in zip(group["completions"], after, strict=True)
            ],
        })  # fmt: skip
    columns = {key: [[one[key] for one in group["completions"]] for group in told] for key in ("before", "after")}
    flat = {f"flat_{key}": sum(map(is_flat, rows)) for key, rows in columns.items()}
    totals = {key: [value for row in rows for value in row] for key, rows in columns.items()}
    return {
        "before": _mean(totals["before"]), "after": _mean(totals["after"]), "num_rollouts": len(totals["after"]),
        "unscored": sum(value is None for value in totals["after"]), "num_groups": len(told), **flat,
        "other_best": sum(best(group, "before") != best(group, "after") for group in told), "groups": told,
    }  # fmt: skip


def _total(components: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """The weighted sum of what the components of the step have said; with a hole there is none."""
    if components and not weights.keys() & components.keys():
        return 0.0
    found = [(weight, components[name]) for name, weight in weights.items() if name in components]
    known = [weight * value for weight, value in found if value is not None]
    return sum(known) if found and len(known) == len(found) else None


def _step(file: Path, rubric: Rubric) -> dict[str, Any]:
    groups = list(objects(file))
    try:
        samples = [_sample(group, one) for group in groups for one in group["completions"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{file} holds a line that is no group of rollouts ({error}).", field="run_dir") from error
    scored = iter(rubric.score(samples))
    told = [_group(group, [next(scored) for _ in group["completions"]]) for group in groups]
    before = [one["before"] for group in told for one in group["completions"]]
    after = [one["after"] for group in told for one in group["completions"]]
    found = _STEP.match(file.name)
    return {
        "step": int(found[1]) if found else None, "before": _mean(before), "after": _mean(after),
        "unscored": sum(value is None for value in after), "num_rollouts": len(after),
        "other_best": sum(best(group, "before") != best(group, "after") for group in told), "groups": told,
    }  # fmt: skip


def _sample(group: dict[str, Any], one: dict[str, Any]) -> Sample:
    return Sample(
        prompt=group["prompt"], completion=one["text"], expected=group.get("answer"), task=group.get("task") or "",
        num_tokens=one["num_tokens"], finish_reason=one["finish_reason"], meta=group.get("meta") or {},
    )


def _group(group: dict[str, Any], scored: Sequence[Scored]) -> dict[str, Any]:
    return {
        "prompt": group["prompt"], "answer": group.get("answer"),
        "completions": [
            {"text": one["text"], "before": one.get("reward"), "after": new.total, "components_before": one.get("components"),
             "components_after": new.components, "detail": new.detail}
            for one, new in zip(group["completions"], scored, strict=True)
        ],
    }  # fmt: skip


def best(group: Mapping[str, Any], key: str) -> int | None:
    """The place of the completion with the highest total, the first of several; None where nothing is scored."""
    values = [(one[key], -place) for place, one in enumerate(group["completions"]) if one[key] is not None]
    return -max(values)[1] if values else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
