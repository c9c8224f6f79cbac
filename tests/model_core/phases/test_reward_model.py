"""The reward model as a whole, by its command: trained from a cold start, over processes, resumed, asked by reinforcement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.reward_model import load_reward_model
from tests.model_core.phases.trained import Train, Trained

STEPS: dict[str, Any] = {"steps": 6, "warmup_steps": 1, "batch_size": 8, "adamw_lr": 0.01}
PHASE: dict[str, Any] = {"phase": "reward_model", "phase_config": STEPS, "checkpoint": {"every_steps": 3, "keep_last": 9}}


@pytest.fixture(scope="module")
def pairs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sums, where the answer with its reasoning is preferred to the bare one."""
    directory = tmp_path_factory.mktemp("pairs")
    for split in ("train", "held_out"):
        rows = [json.loads(line) for line in (dataset / f"{split}.jsonl").read_text().splitlines()]
        (directory / f"{split}.jsonl").write_text("".join(
            json.dumps({**row, "completion": None, "chosen": row["completion"], "rejected": row["answer"]}) + "\n" for row in rows))
    return str(directory)


@pytest.fixture(scope="module")
def judge(train: Train, started: Trained, pairs: str) -> Trained:
    trained = train(PHASE, dataset=pairs, start_from=started.checkpoint(8))
    assert trained.status == 0, trained.output
    return trained


def weights(trained: Trained, step: int) -> dict[str, torch.Tensor]:
    return load_reward_model(Path(trained.checkpoint(step)) / "model")[0].state_dict()


def test_it_learns_and_its_result_is_what_a_gate_reads(judge: Trained) -> None:
    result = judge.result
    assert result["status"] == "succeeded" and result["num_problems"] == 24
    assert result["quality"] == result["accuracy"] == 1.0 and result["quality_low"] > 0.8
    assert judge.series("loss")[-1] < judge.series("loss")[0]
    assert weights(judge, 6)["centre"] == pytest.approx(judge.series("pairs/centre")[-1], abs=1e-6)


@pytest.mark.slow
def test_what_is_resumed_and_what_two_processes_learn(train: Train, judge: Trained, started: Trained, pairs: str) -> None:
    """Slow: five trainers."""
    resumed = train(PHASE, dataset=pairs, resume_from=judge.checkpoint(3))
    assert resumed.status == 0, resumed.output
    assert resumed.series("loss") == judge.series("loss")[3:]
    theirs = weights(judge, 6)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in weights(resumed, 6).items())
    for layout in ({"zero_stage": 1}, {"zero_stage": 3}, {"expert": 2}):
        two = train({**PHASE, "parallel": {"num_processes": 2, **layout}}, dataset=pairs, start_from=started.checkpoint(8))
        assert two.status == 0, two.output
        assert two.series("loss") == pytest.approx(judge.series("loss"), rel=1e-3)
        assert two.result["quality"] == judge.result["quality"]
        assert all(torch.allclose(tensor, theirs[name], atol=1e-3) for name, tensor in weights(two, 6).items()), layout
    reward = {"weights": {"format": 1.0, "preference": 1.0}, "settings": {"preference": {"checkpoint": judge.checkpoint(6)}},
              "from_step": {"preference": 2}}  # fmt: skip
    settings = {"steps": 2, "prompts_per_step": 4, "group_size": 4, "max_new_tokens": 16}
    policy = train({"phase": "reinforcement", "phase_config": settings, "reward": reward, "parallel": {"num_processes": 2}},
                   start_from=started.checkpoint(8))
    assert policy.status == 0, policy.output
    assert len(policy.series("reward/preference/mean")) == 1 and len(policy.series("reward/format/mean")) == 2
    assert policy.result["components"]["preference"] is not None
