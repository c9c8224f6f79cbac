"""Steps of GRPO on a model of a few thousand parameters: what they count, what they tell, and that they teach."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import torch

from model_core.grpo.steps import PolicySteps
from model_core.model import Transformer
from tests.model_core.training.in_process import ROWS, Attempt, Run, model_start

SHORT = {"weights": {"efficiency": 1.0}, "settings": {"efficiency": {"target_tokens": 1, "limit_tokens": 9}}}
"""The sooner the end comes, the better: even a model that knows nothing is rewarded now and then."""


def reinforcement(
    attempt: Attempt, *, reference: bool = False, name: str = "run", reward: Any = SHORT, **settings: Any
) -> tuple[Run, PolicySteps]:
    """A phase that begins with a model whose answers are short and various."""
    start = model_start()
    with torch.no_grad():
        start.model.lm_head.weight.normal_(0, 0.2)
    values = {"steps": 4, "prompts_per_step": 3, "group_size": 4, "max_new_tokens": 8, "kl_probe": 0, **settings}
    run = attempt(name, start=start, phase="reinforcement", reward=reward, phase_config=values)
    kept = model_start().model if reference else None
    if kept is not None:
        kept.load_state_dict(start.model.state_dict())
    problems = [(row, prompt) for row, (prompt, _completion) in zip(ROWS, run.examples, strict=True)]
    return run, PolicySteps(run.frame, run.settings, problems, kept)


def weights(run: Run) -> list[torch.Tensor]:
    policy = run.frame.policy()
    assert isinstance(policy, Transformer)
    return [p.detach().clone() for p in policy.parameters()]


def test_a_step_counts_its_tokens_and_keeps_its_rollouts(attempt: Attempt) -> None:
    run, steps = reinforcement(attempt)
    outcome = steps(0)
    (told,) = run.told("rollouts")
    lines = gzip.decompress((run.rundir.path / told["file"]).read_bytes()).decode().splitlines()
    groups = [json.loads(line) for line in lines]
    assert told["step"] == 1 and told["num_groups"] == len(groups) == 3 and told["num_rollouts"] == 12
    lengths = [completion["num_tokens"] for group in groups for completion in group["completions"]]
    prompts = [4 * (3 + len(group["prompt"])) for group in groups]  # three marks and a token a character
    assert outcome.num_tokens == sum(lengths) + sum(prompts)
    assert outcome.values["len/mean"] == pytest.approx(sum(lengths) / 12) and outcome.values["len/max"] == max(lengths)
    assert [told["stage"] for told in run.told("stage")] == ["sampling", "updating"]


@pytest.mark.parametrize(("minibatches", "epochs"), [(1, 1), (2, 1), (2, 3)])
def test_as_many_updates_as_minibatches_and_epochs(attempt: Attempt, minibatches: int, epochs: int) -> None:
    run, steps = reinforcement(attempt, num_minibatches=minibatches, num_epochs=epochs)
    steps(0)
    counts = {state["step"] for state in run.frame.engine.state._optimizer.state.values() if "step" in state}
    assert counts == {minibatches * epochs}


def test_the_first_update_is_on_the_policy_that_sampled(attempt: Attempt) -> None:
    run, steps = reinforcement(attempt, num_minibatches=1)
    values = steps(0).values
    assert values["clip/low"] == values["clip/high"] == 0.0
    assert values["train_rollout_logprob_diff/max"] < 1e-4  # type: ignore[operator]
    assert values["pg_loss"] == pytest.approx(-mean_advantage_of_tokens(run), abs=1e-4)


def mean_advantage_of_tokens(run: Run) -> float:
    text = gzip.decompress((run.rundir.path / run.told("rollouts")[0]["file"]).read_bytes()).decode()
    told = [c for line in text.splitlines() for c in json.loads(line)["completions"] if len({
        other["reward"] for other in json.loads(line)["completions"]}) > 1]
    return float(sum(c["advantage"] * c["num_tokens"] for c in told) / sum(c["num_tokens"] for c in told))


def test_equal_rewards_change_no_weight_and_are_said(attempt: Attempt) -> None:
    run, steps = reinforcement(attempt, reward={"weights": {"format": 0.0}})
    before = weights(run)
    outcome = steps(0)
    assert outcome.loss_share == 0.0 and outcome.values["reward/frac_zero_std_groups"] == 1.0
    assert "Step 1 taught nothing" in run.told("warning")[0]["message"] and "lr" not in outcome.values
    assert all(torch.equal(one, other) for one, other in zip(before, weights(run), strict=True))


def test_the_same_step_of_the_same_weights_is_the_same(attempt: Attempt) -> None:
    outcomes = []
    for name in ("a", "b"):
        run, steps = reinforcement(attempt, name=name)
        values = steps(2).values
        outcomes.append(({key: value for key, value in values.items() if not key.startswith("perf/")}, weights(run)))
    assert outcomes[0][0] == outcomes[1][0]
    assert all(torch.equal(one, other) for one, other in zip(outcomes[0][1], outcomes[1][1], strict=True))


def test_the_probe_tells_how_far_the_policy_has_gone_and_changes_nothing(attempt: Attempt) -> None:
    plain, plain_steps = reinforcement(attempt, name="plain", adamw_lr=0.01, warmup_steps=0)
    probed, probed_steps = reinforcement(attempt, name="probed", reference=True, kl_probe=5, adamw_lr=0.01, warmup_steps=0)
    told = [probed_steps(step).values["kl"] for step in range(3)]
    for step in range(3):
        assert "kl" not in plain_steps(step).values
    assert told[0] == pytest.approx(0.0, abs=1e-5) and told[2] > told[1] > 1e-4  # type: ignore[operator]
    assert all(torch.equal(one, other) for one, other in zip(weights(plain), weights(probed), strict=True))


def test_a_kl_term_keeps_the_policy_nearer_to_its_start(attempt: Attempt) -> None:
    gone = []
    for name, coefficient in (("free", 0.0), ("held", 30.0)):
        run, steps = reinforcement(attempt, name=name, reference=True, kl_coef=coefficient, adamw_lr=0.01, warmup_steps=0, num_epochs=3)
        before = weights(run)
        values = [steps(step).values for step in range(4)]
        assert ("kl" in values[0]) == bool(coefficient)
        gone.append(sum(float((one - other).square().sum()) for one, other in zip(before, weights(run), strict=True)))
    assert gone[1] < gone[0]


def test_what_is_rewarded_becomes_more_frequent(attempt: Attempt) -> None:
    run, steps = reinforcement(attempt, steps=12, prompts_per_step=6, group_size=8, adamw_lr=0.01, warmup_steps=0)
    run.frame.run(steps)
    rewards = run.series("reward/total")
    assert rewards[0] < 0.5 and rewards[-1] > rewards[0] + 0.2
    assert run.series("len/mean")[-1] < run.series("len/mean")[0]
