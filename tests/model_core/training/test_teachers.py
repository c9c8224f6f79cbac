"""Who may teach whom, and on-policy distillation by hand: of a dense student by a mixture of experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.causal import DenseShape, Student, export_student
from model_core.config import RunConfig, RunPaths
from model_core.data.dataset import Row
from model_core.data.tokenizer import train_tokenizer
from model_core.errors import CheckpointError, ConfigError
from model_core.model import Transformer
from model_core.rundir import RunDir
from model_core.training.checkpoints import seal
from model_core.training.start import load_tokenizer
from model_core.training.teachers import begin_taught
from tests.model_core.phases.trained import execute
from tests.model_core.training.in_process import SHAPE, Attempt, write_dataset
from tests.model_core.training.ranks import ALONE

DENSE = {"model_type": "qwen2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
         "intermediate_size": 24, "max_position_embeddings": 48, "tie_word_embeddings": False, "rms_norm_eps": 1e-6}  # fmt: skip


@pytest.fixture
def teacher(attempt: Attempt) -> str:
    """The checkpoint of a mixture of experts."""
    run = attempt("teacher", phase_config={"steps": 1, "batch_size": 4}, held_out={"num_problems": 1})
    run.train()
    return str(run.rundir.checkpoint(1))


def dense(directory: Path, tokenizer: Any, *, num_more: int = 0) -> str:
    """A directory with a new dense student, its head `num_more` rows wider than the tokenizer."""
    shape = DenseShape.of({**DENSE, "vocab_size": len(tokenizer) + num_more}, where="test")
    torch.manual_seed(0)
    export_student(Student(shape).state_dict(), shape, directory, tokenizer)
    return str(directory)


def test_both_families_may_teach_and_learn(teacher: str, tmp_path: Path) -> None:
    start, frozen = begin_taught(RunPaths(start_from=teacher, rollouts_from=teacher), ALONE)
    assert isinstance(start.model, Transformer) and start.model is not frozen
    assert not frozen.training and not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in start.model.parameters())
    student = dense(tmp_path / "student", load_tokenizer(Path(teacher) / "model"))
    start, frozen = begin_taught(RunPaths(student=student, rollouts_from=teacher), ALONE)
    assert isinstance(start.model, Student) and isinstance(frozen, Transformer)


def test_what_cannot_teach_or_learn_is_refused_by_name(teacher: str, tmp_path: Path) -> None:
    rows = [Row("Was ist 1+2?", "Es ist 3.")]
    other = dense(tmp_path / "other", train_tokenizer(RunConfig(phase="cold_start").tokenizer, rows))
    wide = dense(tmp_path / "wide", load_tokenizer(Path(teacher) / "model"), num_more=3)
    judge = tmp_path / "judge"
    judge.mkdir()
    seal(judge, {"step": 1, "phase": "reward_model", "model_config": {}})
    for paths, field, words in (
        ({"student": other}, "rollouts_from", "needs a teacher"), ({"rollouts_from": teacher}, "start_from", "needs a student"),
        ({"student": other, "rollouts_from": teacher}, "rollouts_from", "one that differs is"),
        ({"student": wide, "rollouts_from": teacher}, "rollouts_from", "rows, and the teacher's"),
        ({"start_from": teacher, "rollouts_from": str(judge)}, "rollouts_from", "holds a reward model"),
        ({"start_from": str(judge), "rollouts_from": teacher}, "start_from", "holds a reward model"),
    ):  # fmt: skip
        with pytest.raises((ConfigError, CheckpointError), match=words) as refused:
            begin_taught(RunPaths(**paths), ALONE)
        assert refused.value.field == field, words


@pytest.mark.slow
def test_a_dense_student_is_taught_by_a_mixture_of_experts(teacher: str, tmp_path: Path) -> None:
    """In a process of its own, as by hand."""
    config = RunConfig.parse({
        "phase": "on_policy_distillation", "model": SHAPE, "held_out": {"num_problems": 4, "max_new_tokens": 8},
        "phase_config": {"steps": 2, "batch_size": 8, "max_new_tokens": 12, "on_policy_fraction": 0.5, "beta": 0.5},
    })  # fmt: skip
    student = dense(tmp_path / "student", load_tokenizer(Path(teacher) / "model"))
    paths = RunPaths(dataset=str(write_dataset(tmp_path / "rows")), student=student, rollouts_from=teacher)
    trained = execute(RunDir.create(tmp_path / "by_hand", run=config, paths=paths))
    assert trained.status == 0, trained.output
    assert trained.result["status"] == "succeeded" and trained.result["num_problems"] == 4
    assert trained.series("distil/on_policy_fraction") == [0.5] * 2 and len(trained.series("distil/agreement")) == 2
    start, _frozen = begin_taught(RunPaths(start_from=trained.checkpoint(2), rollouts_from=teacher), ALONE)
    assert isinstance(start.model, Student)
