"""Every switch of the phase changes what it should of what is told, and a resumed run goes on as if it had never stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from model_core.errors import ConfigError
from model_core.grpo import steps as steps_module
from model_core.grpo.loss import truncated_weights
from model_core.grpo.prompts import InTurn, pass_rate
from model_core.grpo.steps import REFERENCE, PolicySteps
from model_core.grpo.update import Lesson, with_trainer_logprobs
from model_core.phases.reinforcement import Reinforcement
from model_core.rollout.sampling import NonFiniteLogits, draw, most_likely
from tests.model_core.grpo.test_policy_steps import reinforcement
from tests.model_core.grpo.test_rollouts import group
from tests.model_core.grpo.test_update import drawn, model
from tests.model_core.training.in_process import ROWS, Attempt, Run
from tests.model_core.training.ranks import ALONE, each_rank

FAST: dict[str, Any] = {"adamw_lr": 0.01, "warmup_steps": 0}


def told(attempt: Attempt, num: int = 2, *, name: str = "run", reference: bool = False, **settings: Any) -> list[dict[str, Any]]:
    _run, steps = reinforcement(attempt, name=name, reference=reference, **{**FAST, **settings})
    return [steps(step).values for step in range(num)]


@pytest.mark.parametrize(("settings", "quantity"), [
    ({"algorithm": "grpo"}, "pg_loss"),
    ({"algorithm": "dr_grpo"}, "pg_loss"),
    ({"algorithm": "dapo"}, "refilled_prompts"),
    ({"algorithm": "gspo"}, "pg_loss"),
    ({"algorithm": "cispo"}, "pg_loss"),
    ({"algorithm": "rloo"}, "adv/std"),
    ({"algorithm": "reinforce_plus_plus"}, "adv/std"),
    ({"algorithm": "reinforce_plus_plus_baseline"}, "adv/std"),
    ({"final_temperature": 0.5}, "temperature"),
    ({"importance_cap": 1e-3}, "pg_loss"),
    ({"num_epochs": 3}, "staleness/avg_age"),
    ({"kl_coef": 0.5}, "kl"),
    ({"kl_coef": 0.5, "kl_estimator": "k1"}, "kl"),
    ({"kl_coef": 0.5, "kl_estimator": "k2"}, "kl"),
    ({"kl_probe": 4, "reference_every": 1}, "kl"),
])  # fmt: skip
def test_a_switch_changes_a_quantity_that_is_told(attempt: Attempt, settings: dict[str, Any], quantity: str) -> None:
    base = {"kl_probe": 4} if "reference_every" in settings else {"kl_coef": 0.5} if "kl_estimator" in settings else {}
    plain = told(attempt, name="plain", reference=True, **base)
    other = told(attempt, name="other", reference=True, **settings)
    assert plain[1].get(quantity) != other[1][quantity]


def test_flat_groups_are_made_up_for_in_bounded_rounds(attempt: Attempt) -> None:
    flat = {"weights": {"format": 0.0}}
    values = told(attempt, 1, algorithm="dapo", refill_rounds=2, reward=flat)[0]
    assert values["refilled_prompts"] == 6 and values["reward/frac_zero_std_groups"] == 1.0


def test_the_rollouts_age_by_the_updates_since(attempt: Attempt) -> None:
    assert told(attempt, 1, num_minibatches=1, num_epochs=1)[0]["staleness/avg_age"] == 0.0
    assert told(attempt, 1, name="three", num_minibatches=1, num_epochs=3)[0]["staleness/avg_age"] == 1.0


def test_a_replaced_reference_is_the_policy_of_that_moment_and_in_the_checkpoint(attempt: Attempt) -> None:
    run, steps = reinforcement(attempt, reference=True, kl_probe=8, reference_every=2, **FAST)
    assert steps(0).values["kl"] == pytest.approx(0.0, abs=1e-5) and steps(1).values["kl"] > 1e-4  # type: ignore[operator]
    assert REFERENCE not in run.frame.extra_state
    policy = {name: value.clone() for name, value in run.frame.policy().state_dict().items()}
    assert steps(2).values["kl"] == pytest.approx(0.0, abs=1e-5)
    stored = run.frame.extra_state[REFERENCE]
    assert isinstance(stored, bytes)
    assert all(torch.equal(value, policy[name]) for name, value in safetensors.torch.load(stored).items())


def resumed(attempt: Attempt, checkpoint: Path, **settings: Any) -> tuple[Run, PolicySteps]:
    """Goes on in a new directory from the weights and the state of `checkpoint`."""
    from model_core.model import load_pretrained
    from tests.model_core.training.in_process import model_start

    start = model_start()
    start.model.load_state_dict(load_pretrained(checkpoint / "model").state_dict())
    values = {"steps": 4, "prompts_per_step": 3, "group_size": 4, "max_new_tokens": 8, "kl_probe": 0, **settings}
    run = attempt("again", start=start, phase="reinforcement", phase_config=values, resume_from=checkpoint,
                  reward={"weights": {"efficiency": 1.0}, "settings": {"efficiency": {"target_tokens": 1, "limit_tokens": 9}}})
    problems = [(row, prompt) for row, (prompt, _completion) in zip(levelled(), run.examples, strict=True)]
    kept = model_start().model
    return run, PolicySteps(run.frame, run.settings, problems, kept)


def levelled() -> list[Any]:
    return [replace(row, level=number // 4) for number, row in enumerate(ROWS)]


def test_a_resumed_run_has_its_reference_and_its_curriculum(attempt: Attempt) -> None:
    settings = {**FAST, "curriculum": "pass_rate", "reference_every": 2, "kl_coef": 0.1}
    run, steps = reinforcement(attempt, reference=True, **settings)
    steps = PolicySteps(run.frame, run.settings, list(zip(levelled(), [p for _row, p in steps._problems], strict=True)), steps._reference)
    for step in range(3):
        steps(step)
        run.frame.counters.step += 1
    checkpoint = run.frame.save()
    run.frame._saver.settle()
    expected = steps(3)
    again, others = resumed(attempt, run.rundir.path / "checkpoints" / checkpoint.name, **settings)
    found = others(3)
    assert again.frame.counters.step == 3 and others._prompts.state() == steps._prompts.state() != {}
    plain, same = ({k: v for k, v in one.values.items() if not k.startswith("perf/")} for one in (expected, found))
    assert plain == same and "kl" in plain


def test_the_guard_ends_the_run_with_a_checkpoint_when_trainer_and_sampler_stay_apart(attempt: Attempt) -> None:
    run, steps = reinforcement(attempt, max_logprob_difference=1e-12, steps=6)
    result = run.frame.run(steps)
    assert (result["ended_by"], result["status"], result["steps"]) == ("stop", "stopped", steps_module.GUARD_STEPS)
    assert "max_logprob_difference 1e-12" in result["reason"] and run.rundir.checkpoint(steps_module.GUARD_STEPS).exists()
    assert not run.rundir.stop.exists()  # which is for those who ask from outside
    calm, calm_steps = reinforcement(attempt, name="calm", max_logprob_difference=1.0)
    assert calm.frame.run(calm_steps)["ended_by"] == "steps"


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_trainer_judges_alike_on_any_number_of_ranks(size: int) -> None:
    items = drawn(4, 5)
    with torch.no_grad():
        plain = [
            (model(0)(torch.tensor([i.prompt + i.rollout.tokens]))[0] / 0.8).log_softmax(-1)[len(i.prompt) - 1 : -1]
            .gather(1, torch.tensor(i.rollout.tokens)[:, None])[:, 0].tolist() for i in items
        ]  # fmt: skip
    for judged in each_rank(size, lambda world: with_trainer_logprobs(items, model(0), temperature=0.8, max_tokens=20, world=world)):
        assert [item.rollout for item in judged] == [item.rollout for item in items]
        for item, values in zip(judged, plain, strict=True):
            assert item.old_logprobs == pytest.approx(values, abs=1e-5) != item.rollout.logprobs


def test_truncated_weights_are_ratios_up_to_the_cap() -> None:
    weights_M = truncated_weights(torch.tensor([0.5, 2.0, 1.0]).log(), torch.tensor([1.0, 0.5, 1.0]).log(), cap=2.0)
    assert weights_M.tolist() == pytest.approx([0.5, 2.0, 1.0])
    assert Lesson([1], drawn(1, 0)[0].rollout).old_logprobs == drawn(1, 0)[0].rollout.logprobs


def test_prompts_in_turn_come_once_a_pass_and_more_begin_with_fewer() -> None:
    prompts = InTurn(12, per_step=4, seed=1)
    assert sorted(index for step in range(3) for index in prompts.choose(step, 4)) == list(range(12))
    more = prompts.choose(1, 11)
    assert len(more) == 11 and all(more[:num] == prompts.choose(1, num) for num in range(1, 11)) and prompts.state() == {}
    assert pass_rate(group([1.0, 0.0], correct=True)) == 1.0 and pass_rate(group([1.0])) is None


def test_a_replacement_without_a_reference_is_refused() -> None:
    with pytest.raises(ConfigError, match="reference_every is 3"):
        Reinforcement.Config.parse({"reference_every": 3, "kl_probe": 0})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused_with_their_row(bad: float) -> None:
    logits_BV = torch.zeros(3, 5)
    logits_BV[1, 2] = bad
    with pytest.raises(NonFiniteLogits, match="row 1") as refused:
        draw(logits_BV, torch.full((3,), 0.5, dtype=torch.float64))
    assert refused.value.row == 1
    with pytest.raises(NonFiniteLogits, match="row 1"):
        most_likely(logits_BV)
    logits_BV[1, 2] = -float("inf")  # a token that is forbidden
    assert int(draw(logits_BV, torch.full((3,), 0.5, dtype=torch.float64))[0].max()) < 5


def test_nobody_waits_for_a_rank_when_alone() -> None:
    assert with_trainer_logprobs([], model(0), temperature=1.0, max_tokens=9, world=ALONE) == []
