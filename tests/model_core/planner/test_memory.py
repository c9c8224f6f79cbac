"""Laws of memory under layouts: what is shared gets smaller, what is whole stays, and what does not divide is refused."""

from __future__ import annotations

from typing import Any

import pytest

from model_core.config import ModelConfig, ParallelConfig, PrecisionConfig, RunConfig, preset
from model_core.errors import ConfigError
from model_core.planner import (
    Load,
    Memory,
    ServedModel,
    Work,
    cache_bytes,
    memory,
    need,
    needed_bytes,
    parameters,
    refuse_too_large,
    work_of,
)
from tests.model_core.planner.test_parameters import shape

BF16 = PrecisionConfig(dtype="bfloat16")


def needed(config: ModelConfig | None = None, *, precision: PrecisionConfig = BF16, work: Work | None = None, **layout: Any) -> Memory:
    return memory(config or shape(), ParallelConfig(**layout), precision, work or Work(micro_tokens=512))


def parts(found: Memory, moment: str = "backward") -> dict[str, int]:
    return next(one.parts for one in found.moments if one.name == moment)


def test_v3_caches_70272_bytes_a_token() -> None:
    """Source: (512 + 64) numbers × 61 blocks × 2 bytes of the published configuration."""
    assert cache_bytes(preset("v3_671b"), 2) == 70272


@pytest.mark.parametrize(("stage", "shared"), [
    (1, {"masters", "optimizer"}), (2, {"masters", "optimizer", "gradients"}),
    (3, {"masters", "optimizer", "gradients", "weights"}),
])  # fmt: skip
def test_zero_shares_what_its_stage_says(stage: int, shared: set[str]) -> None:
    alone, four = parts(needed(zero_stage=1)), parts(needed(num_processes=4, zero_stage=stage))
    for name in ("weights", "masters", "optimizer", "gradients"):
        assert four[name] * (4 if name in shared else 1) == pytest.approx(alone[name], rel=1e-4), name
    assert four["activations"] == alone["activations"]


def test_states_are_sixteen_bytes_a_parameter_in_bfloat16() -> None:
    """Source: ZeRO (arXiv 1910.02054), section 3.1: 2 weights, 2 gradients, 12 of AdamW and float32 masters."""
    found = parts(needed(zero_stage=1))
    total = sum(found[name] for name in ("weights", "gradients", "masters", "optimizer"))
    assert total == 16 * parameters(shape()).total


def test_one_process_in_float32_has_no_masters() -> None:
    found = parts(needed(precision=PrecisionConfig()))
    assert found["masters"] == 0 and found["optimizer"] == 8 * parameters(shape()).total
    muon = parts(needed(precision=PrecisionConfig(), work=Work(micro_tokens=512, optimizer="muon")))
    assert found["optimizer"] / 2 < muon["optimizer"] < found["optimizer"]


@pytest.mark.parametrize("layout", [{"expert": 4}, {"tensor": 4}, {"pipeline": 3, "num_processes": 3}])
def test_splitting_the_model_makes_states_smaller(layout: dict[str, int]) -> None:
    whole, split = needed(), needed(**{"num_processes": 4, **layout})
    assert split.state_bytes < whole.state_bytes
    assert parts(split)["weights"] < parts(whole)["weights"]


def test_the_first_stages_keep_several_passes() -> None:
    whole, split = parts(needed()), parts(needed(num_processes=3, pipeline=3))
    assert whole["activations"] / 3 < split["activations"] < 3 * whole["activations"]


def test_checkpointing_keeps_less_and_needs_no_more() -> None:
    recomputed = PrecisionConfig(dtype="bfloat16", gradient_checkpointing=True)
    work = Work(micro_tokens=4096)
    assert parts(needed(precision=recomputed, work=work))["activations"] < parts(needed(work=work))["activations"] / 3
    assert needed(precision=recomputed, work=work).peak.total < needed(work=work).peak.total


def test_activations_are_in_proportion_to_tokens() -> None:
    one, two = (parts(needed(work=Work(micro_tokens=n)))["activations"] for n in (500, 1000))
    assert two == 2 * one


def test_an_offloaded_optimizer_is_on_the_cpu() -> None:
    here, away = needed(num_processes=2), needed(num_processes=2, offload="optimizer")
    assert parts(away)["masters"] == parts(away)["optimizer"] == 0 and here.host_bytes == 0
    assert away.host_bytes >= parts(here)["masters"] + parts(here)["optimizer"]


def test_sampling_needs_a_cache_and_where_the_model_is_split_a_copy() -> None:
    work = Work(micro_tokens=512, cache_rows=10, cache_tokens=100)
    whole, split = parts(needed(work=work), "sampling"), parts(needed(num_processes=2, expert=2, work=work), "sampling")
    assert whole["cache"] == 10 * 100 * cache_bytes(shape(), 2) and whole["copy"] == 0
    assert split["copy"] == 4 * parameters(shape()).total


def test_an_engine_needs_weights_and_cache() -> None:
    found = need(ServedModel.of(shape()), Load(number_bytes=2, rows=3, tokens=50))
    assert found.most == 2 * parameters(shape()).total + 150 * cache_bytes(shape(), 2)


@pytest.mark.parametrize(("layout", "changes", "field", "nearest"), [
    ({"expert": 6}, {}, "parallel.expert", "is 4"), ({"expert": 2}, {"first_k_dense_replace": 3}, "parallel.expert", "to 1"),
    ({"expert": 2}, {"n_group": 8, "topk_group": 2}, "parallel.expert", "to 1"), ({"pipeline": 6}, {}, "parallel.pipeline", "at most 3"),
    ({"pipeline": 2}, {"num_nextn_predict_layers": 1}, "parallel.pipeline", "to 1"),
    ({"pipeline": 3, "expert": 2}, {}, "parallel.pipeline", "at most 2"), ({"tensor": 3}, {}, "parallel.tensor", "nearest that divides is 2"),
])  # fmt: skip
def test_what_does_not_divide_is_refused_with_the_nearest(
    layout: dict[str, int], changes: dict[str, Any], field: str, nearest: str
) -> None:
    with pytest.raises(ConfigError, match=nearest) as refused:
        needed(shape(**changes), num_processes=6, **layout)
    assert refused.value.field == field


def test_a_run_is_planned_from_its_configuration() -> None:
    run = RunConfig.parse({"phase": "reinforcement", "phase_config": {"max_micro_tokens": 1000, "group_size": 4}})
    work = work_of(run, run.model)
    assert (work.micro_tokens, work.optimizer, work.cache_rows, work.has_reference) == (1000, "adamw", 512, True)
    assert {moment.name for moment in needed_bytes(run).moments} == {"backward", "update", "sampling"}
    cold = RunConfig.parse({"phase": "cold_start", "phase_config": {"batch_size": 2, "steps": 1}})
    assert work_of(cold, cold.model).optimizer == "muon" and work_of(cold, cold.model).micro_tokens == 512


def test_what_cannot_fit_is_refused_at_the_model() -> None:
    run = RunConfig.parse({"phase": "cold_start", "model": "v2_lite"})
    refuse_too_large(run, available_bytes=1 << 40)
    refuse_too_large(run, available_bytes=1 << 30, shape=shape())
    with pytest.raises(ConfigError, match="smaller model") as refused:
        refuse_too_large(run, available_bytes=16 << 30)
    assert refused.value.field == "model"
