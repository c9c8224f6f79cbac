"""What DeepSpeed computes wrongly, or a model cannot be cut into, is refused with the reason and the nearest right one."""

from __future__ import annotations

from typing import Any

import pytest

from model_core.config import ModelConfig, RunConfig
from model_core.errors import ConfigError
from model_core.planner.layouts import blocks_of_stages, check_layout
from model_core.training.layouts import check_parallel, share_of

PIPELINE, TENSOR = {"num_processes": 2, "pipeline": 2}, {"num_processes": 2, "tensor": 2}


def parsed(parallel: dict[str, Any], *, dtype: str = "float32", phase: str = "cold_start", **settings: Any) -> RunConfig:
    return RunConfig.parse({"phase": phase, "parallel": parallel, "precision": {"dtype": dtype}, "phase_config": settings})


@pytest.mark.parametrize(("parallel", "more", "field", "words"), [
    ({"num_processes": 2, "zero_stage": 0}, {"dtype": "bfloat16"}, "parallel.zero_stage", "Set zero_stage 1"),
    ({"num_processes": 2, "expert": 2, "zero_stage": 0}, {}, "parallel.zero_stage", "misses some.*Set zero_stage 1"),
    ({**PIPELINE, "zero_stage": 0}, {}, "parallel.zero_stage", "own norm.*Set zero_stage 1"),
    ({**PIPELINE, "zero_stage": 2}, {}, "parallel.zero_stage", "pipeline.*Set zero_stage 1"),
    ({**PIPELINE, "zero_stage": 3}, {}, "parallel.zero_stage", "pipeline.*Set zero_stage 1"),
    ({**TENSOR, "zero_stage": 0}, {}, "parallel.zero_stage", "own norm.*Set zero_stage 1"),
    ({"num_processes": 4, "tensor": 2, "expert": 2}, {}, "parallel.tensor", "0.3 % off.*Set clip_norm 0"),
    ({"num_processes": 4, "tensor": 2, "pipeline": 2}, {}, "parallel.tensor", "Set tensor 1 and pipeline 4"),
    ({**PIPELINE, "offload": "optimizer"}, {}, "parallel.offload", "Set offload none"),
    ({"offload": "optimizer", "zero_stage": 0}, {}, "parallel.zero_stage", "Set zero_stage 1"),
    (PIPELINE, {"dtype": "float16"}, "precision.dtype", "Set bfloat16"),
    (PIPELINE, {"phase": "reinforcement"}, "parallel.pipeline", "must see the logits"),
    (TENSOR, {"phase": "reinforcement"}, "parallel.tensor", "must see the logits"),
])
def test_a_wrong_combination_is_refused(parallel: dict[str, Any], more: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parsed(parallel, **more)
    assert refused.value.field == field


@pytest.mark.parametrize(("parallel", "words"), [
    ({"num_processes": 3, "pipeline": 2}, "pipeline 2 times tensor 1 must divide num_processes 3"),
    ({"num_processes": 4, "pipeline": 2, "tensor": 4}, "pipeline 2 times tensor 4 must divide num_processes 4"),
    ({"num_processes": 4, "pipeline": 2, "expert": 4}, "expert 4 must divide the 2 data-parallel processes"),
])
def test_processes_that_do_not_come_out_even_are_refused(parallel: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parsed(parallel)


@pytest.mark.parametrize(("parallel", "shape", "field", "words"), [
    ({"num_processes": 2, "expert": 2}, {"n_routed_experts": 3}, "parallel.expert", "cannot be split over 2"),
    ({"num_processes": 2, "expert": 2}, {"first_k_dense_replace": 3}, "parallel.expert", "no expert layer"),
    ({"num_processes": 2, "expert": 2}, {"n_routed_experts": 4, "n_group": 4, "topk_group": 2}, "parallel.expert", "groups of one"),
    ({"num_processes": 4, "pipeline": 4}, {}, "parallel.pipeline", "at most 3"),
    (PIPELINE, {"num_nextn_predict_layers": 1}, "parallel.pipeline", "multi-token prediction"),
    ({"num_processes": 6, "pipeline": 3, "expert": 2}, {}, "parallel.pipeline", "dense blocks only.*at most 2"),
    ({"num_processes": 3, "tensor": 3}, {}, "parallel.tensor", "num_attention_heads 4; the nearest"),
    (TENSOR, {"intermediate_size": 75}, "parallel.tensor", "intermediate_size 75; the nearest"),
    ({"num_processes": 16, "tensor": 16}, {"num_attention_heads": 16, "moe_intermediate_size": 24}, "parallel.tensor",
     "moe_intermediate_size times n_shared_experts 24; the nearest"),
])
def test_a_shape_that_cannot_be_laid_out_is_refused(
    parallel: dict[str, Any], shape: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        check_layout(ModelConfig.parse(shape), parsed(parallel).parallel)
    assert refused.value.field == field


@pytest.mark.parametrize("parallel", [
    {}, {"num_processes": 8, "zero_stage": 3, "expert": 4}, {"num_processes": 4, "pipeline": 2, "expert": 2}, {**TENSOR, "zero_stage": 3},
])
def test_a_right_one_is_taken(parallel: dict[str, Any]) -> None:
    check_layout(ModelConfig(), parsed(parallel).parallel)


def test_split_heads_and_experts_go_together_without_clipping() -> None:
    assert parsed({"num_processes": 4, "tensor": 2, "expert": 2}, clip_norm=0.0).parallel.data == 2


def test_offload_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parsed({"offload": "optimizer"})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="no GPU") as refused:
        check_parallel(config)
    assert refused.value.field == "parallel.offload"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_parallel(config)


@pytest.mark.parametrize("num_blocks", range(1, 12))
def test_stages_share_the_blocks(num_blocks: int) -> None:
    for num_stages in range(1, num_blocks + 1):
        stages = blocks_of_stages(num_blocks, num_stages)
        assert [block for stage in stages for block in stage] == list(range(num_blocks))
        sizes = [len(stage) for stage in stages]
        assert max(sizes) - min(sizes) <= 1 and sizes[-1] == min(sizes) and sizes[0] == max(sizes)


@pytest.mark.parametrize("parallel", [
    {"num_processes": 6}, {"num_processes": 6, "pipeline": 3}, {"num_processes": 6, "tensor": 2}, {"num_processes": 6, "pipeline": 2},
])
def test_every_part_of_a_batch_is_counted_once(parallel: dict[str, Any]) -> None:
    config = parsed(parallel)
    shares = [share_of(config.parallel, rank) for rank in range(6)]
    assert sorted(share.rank for share in shares if share.is_teller) == list(range(config.parallel.data))
    assert {share.size for share in shares} == {config.parallel.data}
