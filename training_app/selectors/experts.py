"""Loads and routing biases of the experts: of one step, and of a layer over the steps."""

from __future__ import annotations

import math
from typing import Any

from model_core.errors import DataError
from training_app.models import PhaseRun, RunEvent

MAX_STEPS = 200
"""Steps of a history; of more it takes so many, evenly spaced."""
MAX_NUMBERS = 600_000
"""Numbers that a history reads; a large model's has fewer steps."""


def run_experts(run: PhaseRun, *, step: int | None = None) -> dict[str, Any]:
    """Expert loads of one step (the newest when not given): layers, bias, max_violation; and which steps there are."""
    events = RunEvent.objects.filter(run=run, kind="experts")
    steps = sorted({int(found) for found in events.values_list("payload__step", flat=True)})
    chosen = events.order_by("-pk") if step is None else events.filter(payload__step=step).order_by("-pk")
    found = chosen.first()
    if found is None:
        if step is not None and steps:
            raise DataError(
                f"Step {step} has no expert loads; there are steps {steps[0]} to {steps[-1]}.", field="step"
            )
        return {"step": None, "steps": steps}
    return {**found.payload, "steps": steps}


def run_experts_history(run: PhaseRun, *, layer: int = 0) -> dict[str, Any]:
    """Every layer's largest violation, entropy of its loads and norm of its bias by step, and one layer's loads and biases.

    `entropy` is that of the loads over its largest, log of the number of experts: 1 is even, 0 is one expert for all. `load`
    and `bias` are of `layer`, a row a step. Raises DataError.
    """
    told = RunEvent.objects.filter(run=run, kind="experts").order_by("pk")
    events = dict(told.values_list("payload__step", "pk"))
    if not events:
        return {"steps": [], "num_steps": 0, "layer": layer, "num_layers": 0, "max_violation": [], "entropy": [], "bias_norm": [],
                "load": [], "bias": []}  # fmt: skip
    steps = sorted(events)
    first = RunEvent.objects.values_list("payload", flat=True).get(pk=events[steps[0]])
    num_layers = len(first["layers"])
    if not 0 <= layer < num_layers:
        sentence = f"The model has {num_layers} layers with experts, counted from 0; there is no layer {layer}."
        raise DataError(sentence, field="layer")
    numbers_of_a_step = 2 * num_layers * len(first["layers"][0])
    chosen = _spaced(steps, max(2, min(MAX_STEPS, MAX_NUMBERS // max(1, numbers_of_a_step))))
    found = told.filter(pk__in=[events[step] for step in chosen]).values_list("payload", flat=True)
    rows = sorted(found, key=lambda payload: payload["step"])
    return {
        "steps": [payload["step"] for payload in rows], "num_steps": len(steps), "layer": layer, "num_layers": num_layers,
        "max_violation": [payload["max_violation"] for payload in rows],
        "entropy": [[_evenness(shares) for shares in payload["layers"]] for payload in rows],
        "bias_norm": [[round(math.hypot(*values), 5) for values in payload["bias"]] for payload in rows],
        "load": [payload["layers"][layer] for payload in rows],
        "bias": [payload["bias"][layer] if layer < len(payload["bias"]) else [] for payload in rows],
    }  # fmt: skip


def _evenness(shares: list[float]) -> float | None:
    """Entropy of the loads over its largest; None where no token was routed or there is one expert."""
    total = sum(shares)
    if total <= 0 or len(shares) < 2:
        return None
    entropy = -sum(share / total * math.log(share / total) for share in shares if share > 0)
    return round(entropy / math.log(len(shares)), 5)


def _spaced(steps: list[int], most: int) -> list[int]:
    if len(steps) <= most:
        return steps
    return sorted({steps[round(number * (len(steps) - 1) / (most - 1))] for number in range(most)})
