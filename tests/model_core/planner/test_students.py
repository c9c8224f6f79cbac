"""A dense student is counted from its config.json as transformers makes it, and planned wherever a run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_core.__main__ import main
from model_core.causal import DenseShape, count_dense
from model_core.config import ParallelConfig, PrecisionConfig, RunConfig, RunPaths
from model_core.errors import ConfigError
from model_core.planner import DenseModel, Work, cache_bytes, check_layout, flops, memory, needed_bytes, parameters, shape_of
from model_core.rundir import RunDir

SIZES: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
    "vocab_size": 100,
}  # fmt: skip
QWEN_1_5B = {
    "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 131072, "tie_word_embeddings": False,
}  # fmt: skip
"""config.json of DeepSeek-R1-Distill-Qwen-1.5B."""


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("more", [
    {}, {"tie_word_embeddings": True}, {"head_dim": 32}, {"attention_bias": True}, {"num_key_value_heads": None},
])  # fmt: skip
def test_it_has_as_many_parameters_as_transformers_makes(kind: str, more: dict[str, Any]) -> None:
    values = {"model_type": kind, **SIZES, **more}
    if kind != "llama" and more.get("num_key_value_heads", 2) is None:
        values["num_key_value_heads"] = 4
    assert parameters(DenseModel.of(values)).total == count_dense(DenseShape.of(values, where="test"))


def test_a_llama_has_the_biases_of_its_mlp() -> None:
    values = {"model_type": "llama", **SIZES, "mlp_bias": True}
    assert parameters(DenseModel.of(values)).total == count_dense(DenseShape.of(values, where="test"))


def test_a_published_student_is_planned_with_its_own_numbers() -> None:
    shape = DenseModel.of(QWEN_1_5B)
    assert parameters(shape).total == 1_777_088_000  # as its safetensors index says
    assert cache_bytes(shape, 2) == 2 * 2 * 128 * 28 * 2
    # 6 N for training, N without embedding and with the head, and attention: 3 · T · H · 2 W in every block.
    without_norms = 1_777_088_000 - 151936 * 1536 - 28 * 2 * 1536 - 1536
    assert flops(shape, 1000).training == 6 * without_norms + 3 * 28 * 1000 * 12 * 2 * 128


def test_states_are_sixteen_bytes_a_parameter_and_shared_by_zero() -> None:
    shape, total = DenseModel.of(QWEN_1_5B), 1_777_088_000
    alone = memory(shape, ParallelConfig(zero_stage=0), PrecisionConfig(), Work())
    assert alone.state_bytes == 16 * total
    two = memory(shape, ParallelConfig(num_processes=2), PrecisionConfig(dtype="bfloat16"), Work()).moments[0].parts
    assert (two["weights"], two["gradients"], two["masters"], two["optimizer"]) == (2 * total, 2 * total, 2 * total, 4 * total)


def test_checkpointing_keeps_less_and_more_tokens_keep_more() -> None:
    shape = DenseModel.of(QWEN_1_5B)

    def kept(tokens: int, *, again: bool) -> int:
        precision = PrecisionConfig(gradient_checkpointing=again)
        return memory(shape, ParallelConfig(), precision, Work(micro_tokens=tokens)).moments[0].parts["activations"]

    assert kept(1000, again=True) < kept(1000, again=False) / 4
    assert kept(2000, again=False) == 2 * kept(1000, again=False)


def test_the_phase_plans_its_student_and_not_the_large_model() -> None:
    small = RunConfig.parse({"phase": "distillation", "model": "v3_671b", "phase_config": {"num_hidden_layers": 1}})
    large = RunConfig.parse({"phase": "distillation", "model": "v3_671b", "phase_config": {"num_hidden_layers": 40}})
    assert shape_of(small).num_hidden_layers == 1 and isinstance(shape_of(small), DenseModel)
    assert needed_bytes(small).peak.total < needed_bytes(large).peak.total < 2**32
    assert shape_of(RunConfig.parse({"phase": "cold_start"})) == RunConfig.parse({"phase": "cold_start"}).model


@pytest.mark.parametrize("name", ["pipeline", "tensor", "expert"])
def test_a_student_is_not_split(name: str) -> None:
    layout = ParallelConfig.model_validate({"num_processes": 2, name: 2})
    with pytest.raises(ConfigError, match="whole on each process") as refused:
        check_layout(DenseModel.of(QWEN_1_5B), layout)
    assert refused.value.field == f"parallel.{name}"


@pytest.mark.parametrize(("values", "named"), [
    ({"model_type": "mamba"}, "qwen2, qwen3, llama"), ({"model_type": "qwen2", "hidden_size": 64}, "vocab_size"),
    ({"model_type": "llama", **SIZES, "num_hidden_layers": "3"}, "num_hidden_layers"), ({}, "None"),
])  # fmt: skip
def test_what_is_no_student_is_refused_with_the_reason(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        DenseModel.of(values)


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", *arguments, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_the_command_plans_a_directory_and_a_run_that_trains_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "qwen"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(QWEN_1_5B))
    told = planned(capsys, str(directory), "--devices", "1xH200")
    assert told["parameters"]["total"] == 1_777_088_000 and told["smallest"]["is_here"]
    assert main(["plan", str(directory)]) == 0
    assert "latent" not in capsys.readouterr().out
    run = RunConfig.parse({"phase": "distillation"})
    RunDir.create(tmp_path / "run", run=run, paths=RunPaths(student=str(directory)))
    assert planned(capsys, str(tmp_path / "run"))["parameters"]["total"] == 1_777_088_000
    start = tmp_path / "step_1"
    start.mkdir()
    (start / "metadata.json").write_text(json.dumps({"model_config": {"model_type": "llama", **SIZES}}))
    RunDir.create(tmp_path / "next", run=run, paths=RunPaths(start_from=str(start)))
    assert planned(capsys, str(tmp_path / "next"))["parameters"]["head"] == 6400
    RunDir.create(tmp_path / "new", run=run, paths=RunPaths())
    assert planned(capsys, str(tmp_path / "new"))["memory"]["total"] == needed_bytes(run).peak.total


def test_a_run_whose_student_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDir.create(tmp_path / "run", run=RunConfig.parse({"phase": "distillation"}), paths=RunPaths(student=str(tmp_path / "no")))
    assert main(["plan", str(tmp_path / "run")]) != 0
    assert "cannot be read" in capsys.readouterr().err
