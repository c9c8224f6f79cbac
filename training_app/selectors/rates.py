"""Layer-wise learning rates as a plot shows them: the factor of each kind of weight in each part of the model.

The rule is `model_core.config.rates`, which the trainer takes its parameter groups from. Nothing here loads torch.
"""

from __future__ import annotations

from typing import Any

from model_core.config import RunConfig
from model_core.config.rates import RateFactors, part_rates
from model_core.errors import ModelCoreError
from model_core.planner import Shape, shape_of
from model_core.planner.run import with_vocabulary
from training_app.models import PhaseRun, PipelinePhase


def run_rates(run: PhaseRun) -> dict[str, Any] | None:
    """The plot of a run; None where its phase has no such rates, or its settings are of an older version."""
    try:
        return rate_plot(RunConfig.parse({**run.config, "phase": run.phase}), run_shape(run))
    except ModelCoreError:
        return None


def rate_plot(config: RunConfig, shape: Shape) -> dict[str, Any] | None:
    """`parts` from below to above, and of each kind of weight its factor of the peak rate in each of them, None where it is
    not. None where the phase trains nothing."""
    settings = config.phase_config
    if "layer_lr_decay" not in settings:
        return None
    factors = RateFactors.parse(settings["lr_factors"])
    found = part_rates(shape, layer_lr_decay=settings["layer_lr_decay"], lr_factors=factors)
    by_place = {(one.part, one.kind): one.factor for one in found}
    parts, kinds = (list(dict.fromkeys(names)) for names in ((one.part for one in found), (one.kind for one in found)))
    return {
        "parts": parts,
        "kinds": [{"kind": kind, "factors": [by_place.get((part, kind)) for part in parts]} for kind in kinds],
        "is_even": len({one.factor for one in found}) == 1,
    }


def run_shape(run: PhaseRun) -> Shape:
    """The shape of what the run trains: that of the run whose checkpoints it goes back to. Raises ConfigError.

    With the vocabulary that its tokenizer has at most, where the settings leave it to the tokenizer.
    """
    while run.starts_from is not None:
        run = run.starts_from.run
    config = RunConfig.parse({**run.config, "phase": run.phase})
    return with_vocabulary(shape_of(config), config)


def phase_shape(phase: PipelinePhase) -> Shape:
    """The same of a phase of a pipeline."""
    while phase.starts_from is not None:
        phase = phase.starts_from
    if phase.from_checkpoint is not None:
        return run_shape(phase.from_checkpoint.run)
    return shape_of(RunConfig.parse({**phase.config, "phase": phase.phase}))
