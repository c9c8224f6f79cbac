"""How the loop of every phase ends: whoever asks first, with what is on the disk, and what the next attempt still has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model_core.errors import ConfigError
from model_core.training.checkpoints import verify
from model_core.training.failures import NonFiniteGradient, NonFiniteLoss
from model_core.training.frame import MAX_SKIPPED, Outcome
from model_core.training.world import World
from tests.model_core.training.in_process import Attempt, Run
from tests.model_core.training.ranks import CPU


def idle(run: Run, seconds: float = 0.0) -> Any:
    """A step that learns nothing and takes so long."""

    def step(_number: int) -> Outcome:
        run.seconds_pass(seconds)
        return Outcome(num_tokens=5, loss_share=0.5)

    return step


def of(steps: int, **values: Any) -> dict[str, Any]:
    return {"phase_config": {"steps": steps}, **values}


def test_all_steps_are_made_and_the_end_is_measured(attempt: Attempt) -> None:
    run = attempt(**of(3))
    result = run.frame.run(idle(run))
    assert (result["status"], result["ended_by"], result["reason"]) == ("succeeded", "steps", "")
    assert result["steps"] == 3 and result["tokens"] == 15 and result["num_problems"] == 4 and result["error"] is None
    assert [(told["when"], told["step"]) for told in run.told("evaluation")] == [("before", 0), ("after", 3)]
    metadata = verify(run.rundir.path / result["final_checkpoint"])
    assert metadata["is_final"] and metadata["metrics"]["quality"] == result["quality"]
    assert not run.told("stopping") and run.series("loss") == [0.5] * 3


@pytest.mark.parametrize(("asked", "reason"), [("enough", "enough"), ("  \n", "asked to stop")])
def test_a_stop_ends_at_the_next_boundary_without_a_last_measurement(
    attempt: Attempt, asked: str, reason: str
) -> None:
    run = attempt(**of(9))

    def step(number: int) -> Outcome:
        if number == 1:
            run.rundir.ask_to_stop(asked)
        return Outcome(5, 0.5)

    result = run.frame.run(step)
    assert (result["status"], result["ended_by"], result["reason"], result["steps"]) == ("stopped", "stop", reason, 2)
    assert run.told("stopping") == [{"reason": reason, "step": 2}]
    assert [told["when"] for told in run.told("evaluation")] == ["before"] and result["accuracy"] is None
    assert result["accuracy_before"] is not None and not verify(run.rundir.checkpoint(2))["is_final"]


def test_a_signal_is_a_stop_and_a_stop_goes_before_a_budget(attempt: Attempt) -> None:
    signals = SimpleNamespace(received="")
    run = attempt(signals=signals, **of(9, budget={"device_seconds": 50.0}))
    assert not run.frame.wants_to_end()
    run.seconds_pass(100)
    assert run.frame._why_end() == ("", ""), "time counts where it is looked at"
    assert run.frame.wants_to_end() and run.frame._why_end()[0] == "budget"
    signals.received = "SIGTERM"
    assert run.frame._why_end() == ("stop", "The trainer got SIGTERM.")
    run.rundir.ask_to_stop("by hand")
    assert run.frame._why_end() == ("stop", "by hand")


def test_a_stop_before_the_first_step_measures_nothing(attempt: Attempt) -> None:
    run = attempt(**of(9))
    run.rundir.ask_to_stop("at once")
    result = run.frame.run(idle(run))
    assert result["steps"] == 0 and not run.told("evaluation") and not run.told("scalars")
    verify(run.rundir.checkpoint(0))


@pytest.mark.parametrize(("budget", "steps", "words"), [
    ({"device_seconds": 1e4}, 4, "of 10000 device seconds"), ({"wall_seconds": 7e3}, 3, "of 7000 seconds"),
    ({"device_seconds": 1e5, "wall_seconds": 1e4}, 4, "of 10000 seconds"), ({"tokens": 11}, 3, "15 of 11 tokens"),
])
def test_a_budget_ends_at_the_first_boundary_after_it_and_is_measured(
    attempt: Attempt, budget: dict[str, float], steps: int, words: str
) -> None:
    run = attempt(**of(50, budget=budget))
    result = run.frame.run(idle(run, 3000))
    assert (result["status"], result["ended_by"], result["steps"]) == ("succeeded", "budget", steps)
    assert words in result["reason"] and result["quality"] is not None and result["seconds"] > 3000 * steps


def test_the_burn_tells_before_the_end_whether_the_budget_lasts(attempt: Attempt) -> None:
    run = attempt(**of(10, budget={"tokens": 40}))
    run.frame.run(idle(run))
    assert run.series("budget/used_fraction") == pytest.approx([step / 8 for step in range(1, 9)])
    assert run.series("budget/forecast_fraction") == pytest.approx([1.25] * 8)


def test_without_a_budget_no_burn_is_told(attempt: Attempt) -> None:
    run = attempt(**of(2))
    run.frame.run(idle(run))
    assert not any(name.startswith("budget/") for told in run.told("scalars") for name in told["values"])


def test_device_seconds_are_those_of_all_ranks(attempt: Attempt) -> None:
    class OfFour(World):
        def gather(self, value: Any) -> list[Any]:
            return [value] * 4

    run = attempt(world=OfFour(0, 4, CPU), **of(9, parallel={"num_processes": 4}, budget={
        "device_seconds": 2e4, "wall_seconds": 6e3}))
    for seconds, by in ((4000, ""), (1500, "budget")):
        run.seconds_pass(seconds)
        run.frame.wants_to_end()
        assert run.frame._why_end()[0] == by
    assert "of 20000 device seconds" in run.frame._why_end()[1] and run.frame.counters.device_seconds >= 22000


def test_the_budget_is_of_the_run_and_not_of_the_attempt(attempt: Attempt) -> None:
    first = attempt(**of(50, budget={"device_seconds": 1e4}))

    def step(number: int) -> Outcome:
        first.seconds_pass(3000)
        if number == 1:
            first.rundir.ask_to_stop("pause")
        return Outcome(5, 0.5)

    assert first.frame.run(step)["ended_by"] == "stop"
    then = attempt("then", resume_from=first.rundir.checkpoint(2),
               **of(50, budget={"device_seconds": 1e4}))
    result = then.frame.run(idle(then, 3000))
    assert (result["ended_by"], result["steps"], result["tokens"]) == ("budget", 4, 20)
    assert result["quality_before"] == first.frame.counters.before["quality"]  # type: ignore[index]
    assert [told["when"] for told in then.told("evaluation")] == ["after"], "before is measured once in a run"


def test_one_that_ended_with_its_first_measurement_does_not_measure_it_again(attempt: Attempt) -> None:
    class DuringMeasuring:
        @property
        def received(self) -> str:
            return "SIGTERM" if run.told("evaluation") else ""

    run = attempt(signals=DuringMeasuring(), **of(2))
    assert run.frame.run(idle(run))["steps"] == 0 and len(run.told("evaluation")) == 1
    then = attempt("then", resume_from=run.rundir.checkpoint(0), **of(2))
    assert then.frame.run(idle(then))["accuracy_before"] == run.told("evaluation")[0]["accuracy"]
    assert [told["when"] for told in then.told("evaluation")] == ["after"]


def test_an_attempt_whose_budget_is_used_up_makes_no_step(attempt: Attempt) -> None:
    run = attempt(**of(9, budget={"wall_seconds": 5.0}))
    run.seconds_pass(6)
    result = run.frame.run(idle(run))
    assert (result["ended_by"], result["steps"]) == ("budget", 0) and run.told("evaluation")[-1]["when"] == "after"


def test_a_resumed_attempt_is_bitwise_the_one_that_was_not_stopped(attempt: Attempt) -> None:
    values: dict[str, Any] = {"phase_config": {"steps": 6, "batch_size": 5}, "checkpoint": {"every_steps": 3, "keep_last": 9}}
    whole = attempt(**values)
    whole.train()
    again = attempt("again", resume_from=whole.rundir.checkpoint(3), **values)
    again.train()
    assert again.series("loss") == whole.series("loss")[3:] and again.series("grad_norm") == whole.series("grad_norm")[3:]
    theirs = whole.frame.policy().state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in again.frame.policy().state_dict().items())
    assert again.told("progress")[0]["fraction"] == pytest.approx(4 / 6)


def test_another_optimizers_states_are_refused(attempt: Attempt) -> None:
    whole = attempt(**of(1))
    whole.train()
    with pytest.raises(ConfigError, match="optimizer is adamw, but the checkpoint was saved with muon"):
        attempt("other", resume_from=whole.rundir.checkpoint(1),
            phase_config={"steps": 2, "optimizer": "adamw"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(
    attempt: Attempt, value: float
) -> None:
    run = attempt(**of(9, checkpoint={"every_steps": 1}))
    with pytest.raises(NonFiniteLoss, match="rank 0 is not a finite number in step 3") as ended:
        run.frame.run(lambda step: Outcome(5, 0.5 if step < 2 else value))
    assert ended.value.step == 3 and verify(run.rundir.checkpoint(2)) and run.series("loss") == [0.5, 0.5]


def test_many_useless_updates_in_a_row_end_the_run_and_a_good_one_forgives_them(attempt: Attempt) -> None:
    run = attempt(phase_config={"steps": 50, "router_bias_speed": 0.01})
    before = {name: tensor.clone() for name, tensor in run.frame.policy().state_dict().items()}

    def update(factor: float) -> None:
        tokens = torch.arange(6)[None]
        run.frame.update([lambda model: factor * model(tokens, attention_mask=torch.ones(1, 6)).sum()], step=9, num_sequences=1)

    bad = MAX_SKIPPED["float32"] - 1
    for _ in range(bad):
        update(float("inf"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.frame.policy().state_dict().items())
    update(1.0)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in run.frame.policy().state_dict().items())
    for _ in range(bad):
        update(float("nan"))
    with pytest.raises(NonFiniteGradient, match=f"in {bad + 1} updates in a row, the last in step 10") as ended:
        update(float("nan"))
    assert ended.value.step == 10 and len(run.told("warning")) == 2 * bad + 1


def test_a_resumed_attempt_says_no_finding_again(attempt: Attempt) -> None:
    flat: dict[str, float | None] = {"reward/total": 0.5, "reward/frac_zero_std_groups": 1.0, "accuracy/rollouts": 0.3}

    def step(_number: int) -> Outcome:
        return Outcome(5, 0.5, flat)

    values = of(40, checkpoint={"every_steps": 20})
    first = attempt(**values)
    first.frame.run(step)
    (said,) = [told["message"] for told in first.told("warning") if "gamed" in told["message"]]
    assert "all rewards are equal" in said
    then = attempt("then", resume_from=first.rundir.checkpoint(20), **values)
    then.frame.run(step)
    assert len(then.series("reward/total")) == 20 and not [t for t in then.told("warning") if "gamed" in t["message"]]
