"""On-policy distillation: its loss is the equation's, its steps bring a student nearer to its teacher, and go on where they were."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_core.causal import DenseShape, Student
from model_core.training.divergence import compare
from model_core.training.on_policy import DistillationLosses, OnPolicySteps, encode_problems
from model_core.training.start import Start, load_start
from model_core.training.students import StudentStart
from tests.model_core.reference import plain_divergence as plain
from tests.model_core.training.in_process import ROWS, Attempt, Run, model_start

SETTINGS = {"steps": 4, "batch_size": 6, "max_new_tokens": 8, "adamw_lr": 0.01, "warmup_steps": 0, "max_micro_tokens": 40}


def teacher() -> nn.Module:
    """A model that is sure of what it says."""
    model = model_start(seed=7).model
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.5)
    return model.eval().requires_grad_(False)


def student(family: str) -> Start | StudentStart:
    start = model_start()
    if family == "own":
        return start
    shape = DenseShape.of({"model_type": family, "vocab_size": len(start.tokenizer), "hidden_size": 16, "num_hidden_layers": 2,
                           "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 24,
                           "max_position_embeddings": 48, "tie_word_embeddings": False, "rms_norm_eps": 1e-6}, where="test")  # fmt: skip
    torch.manual_seed(0)
    return StudentStart(Student(shape), start.tokenizer, shape)


def distilling(attempt: Attempt, name: str = "run", *, family: str = "own", **values: Any) -> tuple[Run, OnPolicySteps]:
    settings = {**SETTINGS, **values.pop("settings", {})}
    start: Any = student(family)
    run = attempt(name, start=start, phase="on_policy_distillation", phase_config=settings, **values)
    problems = encode_problems(start, ROWS, run.settings, limit=48)
    return run, OnPolicySteps(run.frame, run.settings, problems, teacher())


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_divergence_and_gradient_are_the_equations(beta: float) -> None:
    torch.manual_seed(0)
    logits_MV, teacher_MV = 3 * torch.randn(5, 11, dtype=torch.float64), 3 * torch.randn(5, 11, dtype=torch.float64)
    mine, slow = logits_MV.clone().requires_grad_(), logits_MV.clone().requires_grad_()
    found = compare(mine, teacher_MV, beta=beta)
    expected = plain.loss(teacher_MV, slow, beta)
    found.divergence_M.mean().backward()
    expected.backward()
    assert mine.grad is not None and slow.grad is not None
    torch.testing.assert_close(found.divergence_M.mean(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(mine.grad, slow.grad, rtol=1e-9, atol=1e-12)
    for told_M, p, q in ((found.reverse_kl_M, logits_MV, teacher_MV), (found.forward_kl_M, teacher_MV, logits_MV)):
        torch.testing.assert_close(told_M.mean(), plain.loss(p, q, 0.0), rtol=1e-9, atol=1e-12)
    assert not any(told.requires_grad for told in found[1:])


def test_what_a_divergence_is() -> None:
    torch.manual_seed(1)
    one_MV, other_MV = 20 * torch.randn(50, 30), 20 * torch.randn(50, 30)
    for beta in (0.0, 0.3, 1.0):
        same = compare(one_MV, one_MV, beta=beta)
        assert same.divergence_M.abs().max() < 1e-5 and same.agrees_M.all()
    half = compare(one_MV, other_MV, beta=0.5)
    assert half.divergence_M.min() > 0 and half.divergence_M.max() <= math.log(2) + 1e-6
    torch.testing.assert_close(half.divergence_M, compare(other_MV, one_MV, beta=0.5).divergence_M)
    near = compare(one_MV.double() / 20, other_MV.double() / 20, beta=1e-7)
    torch.testing.assert_close(near.divergence_M / 1e-7, near.forward_kl_M, rtol=1e-3, atol=1e-3)
    assert compare(one_MV.bfloat16(), other_MV.bfloat16(), beta=0.5).divergence_M.dtype == torch.float32


@pytest.mark.parametrize("family", ["own", "qwen2"])
@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_the_loss_of_packed_answers_is_the_mean_of_each_alone(attempt: Attempt, family: str, beta: float) -> None:
    """Loss and gradients against one answer at a time, without packing, by the plain equations."""
    run, _steps = distilling(attempt, family=family, settings={"beta": beta})
    answers, frozen = run.examples[:5], teacher()
    losses = DistillationLosses(answers, frozen, run.settings, run.frame)
    assert len(losses.passes) > 1
    model = run.frame.engine.module
    found = sum(one(model) for one in losses.passes)
    assert isinstance(found, Tensor)
    found.backward()  # type: ignore[no-untyped-call]
    mine = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    rows: list[tuple[Tensor, Tensor]] = []
    for prompt, answer in answers:
        tokens = torch.tensor([[*prompt, *answer[:-1]]])
        rows.append((frozen(tokens)[0, len(prompt) - 1 :], model(tokens)[0, len(prompt) - 1 :]))
    expected = plain.loss(torch.cat([t for t, _s in rows]).double(), torch.cat([s for _t, s in rows]).double(), beta)
    expected.backward()
    theirs = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert len(mine) == len(theirs) > 0
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()) + 1e-8)
    reverse = plain.loss(torch.cat([s for _t, s in rows]), torch.cat([t for t, _s in rows]), 0.0)
    assert losses.told()["distil/reverse_kl"] == pytest.approx(float(reverse.detach()), rel=1e-4)


@pytest.mark.parametrize("family", ["own", "qwen2"])
def test_a_student_comes_nearer_to_its_teacher(attempt: Attempt, family: str) -> None:
    run, steps = distilling(attempt, family=family, settings={"steps": 15, "batch_size": 12, "adamw_lr": 0.03})
    run.frame.run(steps)
    for name, is_less in (("loss", True), ("distil/reverse_kl", True), ("distil/forward_kl", True), ("distil/agreement", False)):
        series = run.series(name)
        early, late = sum(series[:3]) / 3, sum(series[-3:]) / 3
        assert late < 0.8 * early if is_less else late > early + 0.1, (name, series)
    assert run.series("loss") == pytest.approx(run.series("distil/reverse_kl"), rel=1e-5)
    assert {"entropy", "len/mean", "truncated_ratio", "reward/total", "perf/rollout_s", "perf/teacher_s", "perf/sync_s"} <= set(
        run.told("scalars")[1]["values"])  # fmt: skip
    assert len(run.told("rollouts")) == 15 and run.told("rollouts")[0]["num_groups"] == 12


def test_a_resumed_run_is_bitwise_the_same(attempt: Attempt) -> None:
    saved = {"checkpoint": {"every_steps": 2, "keep_last": 9}, "settings": {"on_policy_fraction": 0.7}}
    whole, steps = distilling(attempt, "whole", **saved)
    whole.frame.run(steps)
    again, steps = distilling(attempt, "again", resume_from=whole.rundir.checkpoint(2), **saved)
    again.frame.engine.module.load_state_dict(load_start(whole.rundir.checkpoint(2)).model.state_dict())
    again.frame.run(steps)
    assert again.series("loss") == whole.series("loss")[2:]
    for name, weight in again.frame.engine.module.state_dict().items():
        assert torch.equal(weight, whole.frame.engine.module.state_dict()[name]), name


def test_prompts_are_answered_by_the_student_to_their_share(attempt: Attempt) -> None:
    run, steps = distilling(attempt, settings={"on_policy_fraction": 0.25, "batch_size": 6})
    shares = [steps(step).values["distil/on_policy_fraction"] for step in range(4)]
    assert sum(share for share in shares if share is not None) == pytest.approx(4 * 0.25)
    assert [told["num_groups"] for told in run.told("rollouts")] == [round(6 * share) for share in shares if share]
    offline, steps = distilling(attempt, "offline", settings={"on_policy_fraction": 0.0})
    outcome = steps(0)
    assert not offline.told("rollouts") and outcome.values["distil/on_policy_fraction"] == 0 and "len/mean" not in outcome.values
