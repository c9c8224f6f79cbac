"""Every combination of layout, precision and phase: refused exactly where a rule says so, and the remedy that is named helps."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from model_core.config import RunConfig
from model_core.config.combinations import check_combination
from model_core.errors import ConfigError
from model_core.phases import PHASES

SIZES = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 1), (2, 1, 2), (1, 2, 2)]
"""Experts, pipeline, tensor."""
WHOLE = ("reinforcement", "distillation", "reward_model", "on_policy_distillation")
"""Phases whose model no process holds a part of."""


def every_combination() -> Iterator[dict[str, Any]]:
    for (expert, pipeline, tensor), stage, dtype, offload, clip, alpha, phase in itertools.product(
        SIZES, range(4), ("float32", "bfloat16", "float16"), ("none", "optimizer"), (0.0, 1.0), (0.0, 1e-4), PHASES.names()
    ):
        yield {
            "phase": phase, "precision": {"dtype": dtype}, "phase_config": {"clip_norm": clip, "aux_loss_alpha": alpha},
            "parallel": {"num_processes": expert * pipeline * tensor, "expert": expert, "pipeline": pipeline, "tensor": tensor,
                         "zero_stage": stage, "offload": offload},
        }  # fmt: skip


def broken_fields(asked: dict[str, Any]) -> set[str]:
    """The obvious reading of the rules: which fields are wrong."""
    p, dtype, settings = asked["parallel"], asked["precision"]["dtype"], asked["phase_config"]
    piped, split, stage = p["pipeline"] > 1, p["tensor"] > 1, p["zero_stage"]
    wrong = {
        "parallel.zero_stage": (stage == 0 and (dtype != "float32" or p["expert"] > 1 or piped or split or p["offload"] != "none"))
        or (piped and stage > 1),
        "parallel.tensor": split and (piped or (p["expert"] > 1 and settings["clip_norm"] > 0) or asked["phase"] in WHOLE),
        "parallel.pipeline": piped and asked["phase"] in WHOLE,
        "parallel.offload": p["offload"] != "none" and (piped or split),
        "precision.dtype": piped and dtype == "float16",
        "phase_config.aux_loss_alpha": piped and settings["aux_loss_alpha"] > 0,
    }
    return {field for field, is_wrong in wrong.items() if is_wrong}


BASES = {phase: RunConfig.parse({"phase": phase}) for phase in PHASES.names()}


def checked(asked: dict[str, Any]) -> ConfigError | None:
    """What the rules say, on a run that was parsed before; parsing each of thousands takes seconds."""
    base = BASES[asked["phase"]]
    config = base.model_copy(update={
        "parallel": base.parallel.model_copy(update=asked["parallel"]), "precision": base.precision.model_copy(update=asked["precision"]),
        "phase_config": {**base.phase_config, **asked["phase_config"]},
    })  # fmt: skip
    try:
        check_combination(config, PHASES.get(asked["phase"]))
    except ConfigError as error:
        return error
    return None


def test_a_combination_is_refused_exactly_where_a_rule_says_so() -> None:
    num_right = 0
    for asked in every_combination():
        wrong, error = broken_fields(asked), checked(asked)
        assert (error is None) == (not wrong), (asked, error)
        assert error is None or error.field in wrong, (asked, error)
        num_right += error is None
    assert num_right > 100


def remedied(asked: dict[str, Any], error: ConfigError) -> dict[str, Any]:
    """The combination with what the sentence says: “Set zero_stage 1”, “Set it to 1”, “Set tensor 1 and pipeline 4”."""
    made = {key: dict(value) if isinstance(value, dict) else value for key, value in asked.items()}
    remedy = error.message.rpartition("Set ")[2]
    if remedy.startswith("it to 1"):
        made["parallel"][error.field.rpartition(".")[2]] = 1
        return made
    for part in remedy.partition(",")[0].rstrip(".").split(" and "):
        name, value = re.fullmatch(r"(?:(\w+) )?(\w+)", part).groups()  # type: ignore[union-attr]
        where = "precision" if name is None else "parallel" if name in made["parallel"] else "phase_config"
        made[where][name or "dtype"] = int(value) if value.isdigit() else value
    return made


def test_the_remedy_that_is_named_leads_to_a_combination_that_is_right() -> None:
    for asked in every_combination():
        seen = [asked]
        while (error := checked(seen[-1])) is not None:
            seen.append(remedied(seen[-1], error))
            assert len(seen) < 8 and seen[-1] not in seen[:-1], (asked, error)
        parallel = seen[-1]["parallel"]
        assert parallel["num_processes"] % (parallel["pipeline"] * parallel["tensor"]) == 0


@pytest.mark.parametrize("phase", ["cold_start", "rejection_sampling"])
def test_the_balance_loss_in_a_pipeline_is_refused_by_parsing_with_its_place(phase: str) -> None:
    asked = {"phase": phase, "parallel": {"num_processes": 2, "pipeline": 2}, "phase_config": {"aux_loss_alpha": 1e-4}}
    with pytest.raises(ConfigError, match="aux_loss_alpha 0, or pipeline 1") as refused:
        RunConfig.parse(asked, prefix="phases.0.config")
    assert refused.value.field == "phases.0.config.phase_config.aux_loss_alpha"
