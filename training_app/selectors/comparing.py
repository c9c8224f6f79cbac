"""Runs side by side: the settings in which they differ, and the last and the best of what each measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from model_core.events import METRICS
from training_app import buckets, pyramid
from training_app.models import MetricSeries, PhaseRun

MAX_RUNS = 200
HIGHER = ("eval/", "accuracy/", "reward/total", "pairs/accuracy", "pairs/margin", "perf/tok_s", "distil/agreement")
LOWER = ("loss", "eval/loss", "kl", "distil/reverse_kl", "distil/forward_kl", "truncated_ratio", "aborted_ratio",
         "moe/max_vio", "moe/load_cv", "train_rollout_logprob_diff/", "reward/frac_zero_std_groups", "perf/step_s",
         "perf/memory_bytes")  # fmt: skip
"""Beginnings of names of which more, or less, is better by itself."""


def run_ids_of(text: str) -> list[int]:
    """Ids separated by commas, each once. Raises ValueError with a sentence."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise ValueError("Name the runs by their numbers, separated by commas.")
    if wrong := next((word for word in words if not (word.isascii() and word.isdigit() and len(word) < 18)), None):
        raise ValueError(f"“{wrong[:40]}” is not the number of a run.")
    if len(words) > MAX_RUNS:
        raise ValueError(f"{len(words)} runs are too many to be read side by side; choose at most {MAX_RUNS}.")
    return list(dict.fromkeys(int(word) for word in words))


def runs_comparison(runs: Sequence[PhaseRun]) -> dict[str, Any]:
    """`runs` as given, `settings` that are not the same in all, `measures` with a value a run or None."""
    return {
        "runs": [{"id": run.pk, "name": run.name, "phase": run.phase, "state": run.state} for run in runs],
        "settings": list(_settings([run.config for run in runs])),
        "measures": _measures(runs),
    }


def better_of(name: str) -> str:
    """Whether "higher" or "lower" values of a metric are better; "" where neither is by itself."""
    if name.startswith(LOWER):
        return "lower"
    return "higher" if name.startswith(HIGHER) else ""


def _settings(configs: list[Any], path: str = "") -> Iterator[dict[str, Any]]:
    """Each setting that is not the same everywhere, down to the single value."""
    if any(isinstance(one, dict) for one in configs) and all(one is None or isinstance(one, dict) for one in configs):
        parts: list[dict[str, Any]] = [one or {} for one in configs]
        for key in sorted({key for one in parts for key in one}):
            yield from _settings([one.get(key) for one in parts], f"{path}.{key}" if path else key)
    elif any(one != configs[0] for one in configs):
        yield {"path": path, "values": configs}


def _measures(runs: Sequence[PhaseRun]) -> list[dict[str, Any]]:
    """By name; extremes are of all points."""
    places = {run.pk: place for place, run in enumerate(runs)}
    with pyramid.snapshot():
        many = list(MetricSeries.objects.filter(run__in=places, num_points__gt=0))
        last = max((one.last_step for one in many), default=0)
        found = pyramid.read(many, first=min((one.first_step for one in many), default=0), last=last, width=_coarsest(last))
    by_name: dict[str, list[dict[str, Any] | None]] = {}
    for one in many:
        values = by_name.setdefault(one.name, [None] * len(runs))
        values[places[one.run_id]] = _value(one, found[one.pk])
    return [
        {"name": name, "unit": METRICS.get(name, ("", ""))[0], "better": better_of(name), "values": values}
        for name, values in sorted(by_name.items())
    ]


def _coarsest(last: int) -> int:
    """The width at which a series up to `last` is least to read."""
    bits = max(last.bit_length() - buckets.CHUNK_BITS, 0)
    return 1 << buckets.LEVEL_BITS * min(bits // buckets.LEVEL_BITS, buckets.NUM_LEVELS - 1)


def _value(series: MetricSeries, found: buckets.Buckets) -> dict[str, Any]:
    edges = np.fmin.reduce(found["min"], initial=np.nan), np.fmax.reduce(found["max"], initial=np.nan)
    low, high = (float(edge) if edge == edge else None for edge in edges)
    best = {"higher": high, "lower": low, "": None}[better_of(series.name)]
    return {"last": series.last_value, "best": best, "min": low, "max": high}
