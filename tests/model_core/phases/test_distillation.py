"""Distillation as a whole: chains or demonstrations teach a dense student, whose checkpoints resume and are exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2Config

from model_core.config import ModelConfig, RunConfig, RunPaths
from model_core.data.dataset import Row
from model_core.errors import CheckpointError, ConfigError, DataError
from model_core.phases.distillation import Distillation
from model_core.rundir import COMPLETE
from model_core.training.checkpoints import seal
from model_core.training.start import load_start
from model_core.training.students import begin_student, curated_rows
from tests.model_core.phases.trained import Train, Trained
from tests.model_core.training.ranks import ALONE

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
         "max_position_embeddings": 48}
DISTILLATION: dict[str, Any] = {
    "phase": "distillation", "phase_config": {"steps": 6, "warmup_steps": 1, "adamw_lr": 0.03, "batch_size": 16, **SHAPE},
    "checkpoint": {"every_steps": 3, "keep_last": 9},
}


@pytest.fixture(scope="module")
def distilled(train: Train) -> Trained:
    """A student of the dataset's demonstrations."""
    trained = train(DISTILLATION)
    assert trained.status == 0, trained.output
    return trained


def weights(trained: Trained, step: int) -> dict[str, torch.Tensor]:
    return load_file(trained.rundir.checkpoint(step) / "model" / "model.safetensors")


def test_a_student_learns_and_is_measured_before_and_after(distilled: Trained) -> None:
    losses = distilled.series("loss")
    assert len(losses) == 6 and losses[-1] < 0.9 * losses[0]
    assert [e["when"] for e in distilled.events("evaluation")][0::len(distilled.events("evaluation")) - 1] == ["before", "after"]
    assert distilled.result["status"] == "succeeded" and distilled.result["num_problems"] == 24
    (started,) = distilled.events("started")
    assert started["num_parameters"] == started["num_active_parameters"] == sum(w.numel() for w in weights(distilled, 6).values())


def test_a_checkpoint_is_a_directory_that_transformers_reads(distilled: Trained) -> None:
    checkpoint, reader = distilled.rundir.checkpoint(6), AutoModelForCausalLM
    assert (checkpoint / COMPLETE).is_file()
    read: Any = reader
    model, found = read.from_pretrained(str(checkpoint / "model"), output_loading_info=True)
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert not any(found[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_resumed_student_is_bitwise_the_same(train: Train, distilled: Trained) -> None:
    resumed = train(DISTILLATION, resume_from=distilled.checkpoint(3))
    assert resumed.status == 0, resumed.output
    assert resumed.series("loss") == distilled.series("loss")[3:]
    theirs = weights(distilled, 6)
    assert all(torch.equal(weight, theirs[name]) for name, weight in weights(resumed, 6).items())
    assert resumed.result["accuracy"] == distilled.result["accuracy"]


@pytest.mark.slow
def test_two_processes_teach_what_one_teaches(train: Train) -> None:
    """Slow: three trainers. AdamW, because Muon is not for sharded states."""
    values = {**DISTILLATION, "phase_config": {**DISTILLATION["phase_config"], "optimizer": "adamw"},
              "precision": {"gradient_checkpointing": True}}
    two, one = train({**values, "parallel": {"num_processes": 2}}), train(values)
    assert two.status == one.status == 0, two.output + one.output
    assert two.series("loss") == pytest.approx(one.series("loss"), rel=1e-4)
    resumed = train(values, resume_from=two.checkpoint(3))
    assert resumed.status == 0, resumed.output
    assert resumed.series("loss") == pytest.approx(two.series("loss")[3:], rel=1e-4)


def test_other_phases_refuse_a_student(distilled: Trained) -> None:
    with pytest.raises(CheckpointError, match=r"dense student \(qwen2\), which is trained on by distillation"):
        load_start(distilled.checkpoint(6))


# --- in this process: what is learnt, and by whom


def with_chains(checkpoint: str, directory: Path, chains: list[dict[str, Any]] | None) -> str:
    """A copy of a checkpoint as rejection sampling would have left it."""
    shutil.copytree(checkpoint, directory)
    if chains is not None:
        (directory / "state" / "chains.jsonl").write_text("".join(json.dumps(chain) + "\n" for chain in chains))
    return str(directory)


def test_the_curated_set_is_what_was_kept_else_the_demonstrations(distilled: Trained, dataset: Path, tmp_path: Path) -> None:
    chain: dict[str, Any] = {"prompt": "1+2=", "completion": "<think>1+2=3</think>3", "answer": "3", "task": "sums"}
    kept = with_chains(distilled.checkpoint(6), tmp_path / "kept", [chain])
    assert curated_rows(RunPaths(dataset=str(dataset), rollouts_from=kept)) == [Row(**chain)]
    assert len(curated_rows(RunPaths(dataset=str(dataset)))) == 200
    with pytest.raises(CheckpointError, match="keeps no chains"):
        curated_rows(RunPaths(rollouts_from=distilled.checkpoint(6)))
    with pytest.raises(DataError, match="before a chain was kept"):
        curated_rows(RunPaths(rollouts_from=with_chains(distilled.checkpoint(6), tmp_path / "none", [])))


def begun(paths: RunPaths, **phase_config: Any) -> Any:
    config = RunConfig.parse({**DISTILLATION, "phase_config": {**DISTILLATION["phase_config"], **phase_config}})
    settings = Distillation.Config.parse(config.phase_config)
    return begin_student(config, settings, paths, [Row("1+2=", "<think>1+2=3</think>3")], ALONE)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_a_new_student_is_of_the_shape_asked_for_and_of_the_seed(kind: str) -> None:
    one, again = (begun(RunPaths(), student_class=kind) for _ in range(2))
    assert one.model_config.model_type == kind and one.model_config.vocab_size == len(one.tokenizer)
    assert {name: one.model_config.values[name] for name in SHAPE} == SHAPE
    assert all(torch.equal(a, b) for a, b in zip(one.model.state_dict().values(), again.model.state_dict().values(), strict=True))


def test_a_directory_of_others_gets_the_marks_that_it_lacks(distilled: Trained, tmp_path: Path) -> None:
    tokenizer = begun(RunPaths(start_from=distilled.checkpoint(6))).tokenizer
    size = len(tokenizer)
    sizes: dict[str, Any] = {**SHAPE, "vocab_size": size}
    own = Qwen2Config(**sizes)
    AutoModelForCausalLM.from_config(own).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        file = tmp_path / name
        if file.exists():
            file.write_text(file.read_text().replace("<|assistant|>", "<|answerer|>").replace("<|end|>", "<|eot|>"))
    theirs = load_file(tmp_path / "model.safetensors")
    start = begun(RunPaths(student=str(tmp_path)))
    assert len(start.tokenizer) == start.model_config.vocab_size == size + 2 and start.tokenizer.eos_token == "<|end|>"
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        grown = start.model.state_dict()[name]
        assert torch.equal(grown[:size], theirs[name])
        torch.testing.assert_close(grown[size:], theirs[name].mean(dim=0).expand(2, -1))
    assert torch.equal(start.model.state_dict()["model.norm.weight"], theirs["model.norm.weight"])


def test_a_mixture_of_experts_is_no_student(tmp_path: Path) -> None:
    seal(tmp_path, {"step": 4, "phase": "cold_start", "model_config": ModelConfig().resolved()})
    with pytest.raises(CheckpointError, match="mixture-of-experts model") as refused:
        begun(RunPaths(start_from=str(tmp_path)))
    assert refused.value.field == "start_from"


@pytest.mark.parametrize(("values", "words"), [
    ({"hidden_size": 18}, "multiple of twice num_attention_heads 2"), ({"num_attention_heads": 4, "num_key_value_heads": 3}, "must divide"),
])
def test_heads_that_do_not_divide_are_refused(values: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Distillation.Config.parse({**SHAPE, **values})


def test_a_student_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose a smaller student"):
        begun(RunPaths(), hidden_size=1 << 18, intermediate_size=1 << 18)
