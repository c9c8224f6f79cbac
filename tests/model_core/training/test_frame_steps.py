"""What the loop does between two steps: when it measures and saves, what it tells, what balance adds, and ranks in step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from model_core.data.order import indices_of_step
from model_core.model import Transformer
from model_core.model.moe import Gate, MoE
from model_core.training.checkpoints import read_metadata, verify
from model_core.training.frame import Outcome
from model_core.training.supervised import SupervisedSteps, supervised_passes
from model_core.training.world import World
from tests.model_core.training.in_process import ROWS, Attempt, Run, model_start
from tests.model_core.training.ranks import each_rank


def idle(_step: int) -> Outcome:
    return Outcome(num_tokens=5, loss_share=0.5)


@pytest.mark.parametrize(("every", "keep_best", "measure_every", "num_during", "measured", "saved"), [
    (0, 1, 0, 2, [], [7]), (3, 1, 0, 2, [3, 6], [3, 6, 7]), (3, 0, 0, 2, [], [3, 6, 7]), (3, 1, 2, 2, [2, 3, 4, 6], [3, 6, 7]),
    (3, 0, 2, 2, [2, 4, 6], [3, 6, 7]), (2, 1, 3, 0, [], [2, 4, 6, 7]), (7, 1, 7, 2, [], [7]),
])
def test_what_is_due_at_which_step(
    attempt: Attempt, every: int, keep_best: int, measure_every: int, num_during: int, measured: list[int], saved: list[int]
) -> None:
    """The last step is measured and saved as the end, not as one that is due."""
    run = attempt(phase_config={"steps": 7}, checkpoint={"every_steps": every, "keep_best": keep_best, "keep_last": 9},
                  held_out={"every_steps": measure_every, "num_problems_during": num_during})
    run.frame.run(idle)
    assert [told["step"] for told in run.told("evaluation") if told["when"] == "during"] == measured
    assert [int(path.name[5:]) for path in run.rundir.complete_checkpoints()] == saved
    for path in run.rundir.complete_checkpoints():
        metadata = read_metadata(path)
        assert ("quality" in metadata["metrics"]) == (metadata["step"] in {*measured, 7}), "only its own measurement is its own"


def test_the_clock_saves_between_and_measures_nothing(attempt: Attempt) -> None:
    run = attempt(phase_config={"steps": 4}, checkpoint={"every_seconds": 1e-9, "keep_last": 9})
    run.frame._saver._took = 0.0

    def step(_number: int) -> Outcome:
        run.frame._saver.settle()
        run.frame._saver._took = 0.0  # a slow disk makes such checkpoints rarer
        return Outcome(5, 0.5)

    run.frame.run(step)
    assert [told["step"] for told in run.told("checkpoint")] == [1, 2, 3, 4, 4]
    assert not [told for told in run.told("evaluation") if told["when"] == "during"]


def test_every_step_is_told_with_its_loads_and_numbers_that_add_up(attempt: Attempt) -> None:
    run = attempt(phase_config={"steps": 3, "batch_size": 4})
    run.train()
    scalars = [told for told in run.told("scalars") if "loss" in told["values"]]
    assert [told["step"] for told in scalars] == [1, 2, 3] and [told["tokens"] for told in scalars] == sorted(
        told["tokens"] for told in scalars)
    assert all(told["values"]["perf/step_s"] >= told["values"]["perf/train_s"] > 0 for told in scalars)
    assert scalars[-1]["tokens"] == run.frame.counters.tokens == sum(
        len(run.examples[i][0]) + len(run.examples[i][1]) for step in range(3) for i in order(run, step))
    for told in run.told("experts"):
        assert [sum(layer) for layer in told["layers"]] == pytest.approx([1.0], abs=1e-4)
    assert [told["fraction"] for told in run.told("progress")] == pytest.approx([1 / 3, 2 / 3, 1])


def order(run: Run, step: int) -> list[int]:
    return indices_of_step(step, num_examples=len(run.examples), batch_size=run.settings.batch_size, seed=run.config.seed)


def test_fewer_held_out_problems_than_asked_for_are_said_and_none_are_no_measurement(attempt: Attempt) -> None:
    few = attempt(phase_config={"steps": 1}, held_out={"num_problems": 100})
    assert "has 12 held-out problems, fewer than the 100" in few.told("warning")[0]["message"]
    assert few.frame.run(idle)["num_problems"] == len(ROWS)
    none = attempt("none", phase_config={"steps": 1}, rows=[])
    result = none.frame.run(idle)
    assert result["accuracy"] is None and result["num_problems"] == 0 and not none.told("evaluation")
    assert verify(none.rundir.checkpoint(1))["is_final"]


def test_a_fallback_of_the_optimizer_is_said(attempt: Attempt) -> None:
    alone, shared = attempt(), attempt("bfloat16", precision={"dtype": "bfloat16"})
    assert not alone.told("fallback") and "AdamW updates the matrices too" in shared.told("fallback")[0]["message"]


def test_the_balance_loss_is_added_to_the_gradient_and_not_to_the_loss(attempt: Attempt) -> None:
    """By hand: mean over sequences of the sequence-wise loss times its factor, beside the mean over tokens."""
    alpha, settings = 0.5, {"steps": 9, "router_bias_speed": 0.0, "clip_norm": 1e9}
    plain, balanced = (attempt(name, phase_config={**settings, "aux_loss_alpha": value}) for name, value in (("a", 0.0), ("b", alpha)))
    gradients, reports = [], []
    for run in (plain, balanced):
        share, rows = run.frame.engine.share, run.examples[:4]
        passes = supervised_passes(rows, max_tokens=20, share=share, device=run.frame.world.device)
        reports.append(run.frame.update(passes, step=0, num_sequences=4))
        gradient = gate_of(run.frame.policy()).weight.grad
        assert gradient is not None
        gradients.append(gradient)
    assert reports[1].loss == pytest.approx(reports[0].loss, abs=1e-6)
    assert reports[1].values["moe/balance_loss"] == pytest.approx(1.0, abs=0.5), "one expert layer, all but even at first"
    model = model_start().model
    rows = balanced.examples[:4]
    by_hand = torch.stack([sequence_loss(model, prompt + completion) for prompt, completion in rows]).mean()
    assert float(by_hand.detach()) == pytest.approx(reports[1].values["moe/balance_loss"], rel=1e-4)
    added = alpha * torch.autograd.grad(by_hand, gate_of(model).weight)[0]
    assert torch.allclose(gradients[1] - gradients[0], added, atol=1e-5) and float(added.abs().max()) > 1e-4


def gate_of(model: Transformer) -> Gate:
    layer = model.blocks[1].mlp
    assert isinstance(layer, MoE)
    return layer.gate


def sequence_loss(model: Transformer, tokens: list[int]) -> torch.Tensor:
    """DeepSeek-V3, equations 17 to 20, of one sequence in the only expert layer."""
    seen: list[Any] = []
    gate = gate_of(model)
    hook = gate.register_forward_hook(lambda _gate, inputs, out: seen.append((inputs[0], out[1])))
    model(torch.tensor([tokens[:-1]]))
    hook.remove()
    (x_TD, chosen_TK), = seen
    scores_TE = gate.scores(x_TD)
    share_TE = scores_TE / scores_TE.sum(dim=1, keepdim=True)
    num, (length, num_chosen) = scores_TE.shape[1], chosen_TK.shape
    total = torch.zeros(())
    for expert in range(num):
        fraction = int((chosen_TK == expert).sum()) * num / (num_chosen * length)
        total = total + fraction * share_TE[:, expert].mean()
    return total


def test_the_bias_moves_after_each_good_update_by_its_speed_or_not_at_all(attempt: Attempt) -> None:
    run = attempt(phase_config={"steps": 3, "batch_size": 4, "router_bias_speed": 0.25})
    run.train()
    moved = [value for told in run.told("experts")[-1:] for layer in told["bias"] for value in layer]
    assert any(moved) and all((value / 0.25) == int(value / 0.25) and abs(value) <= 0.75 for value in moved)
    still = attempt("still", phase_config={"steps": 3, "batch_size": 4, "router_bias_speed": 0.0})
    still.train()
    assert not any(value for layer in still.frame.balance.biases() for value in layer)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_learn_measure_and_save_what_one_does(attempt: Attempt, size: int) -> None:
    values: dict[str, Any] = {"phase_config": {"steps": 3, "batch_size": 5, "optimizer": "adamw", "aux_loss_alpha": 0.01},
                              "checkpoint": {"every_steps": 2}}
    alone, start = attempt("alone", **values), model_start()
    expected = alone.train()
    attempt("both", start=copy.deepcopy(start), **values, parallel={"num_processes": 1})  # makes the directory

    def program(world: World) -> tuple[Run, dict[str, Any]]:
        mine = starts[world.rank]
        run = attempt("both", start=mine, world=world, **values, parallel={"num_processes": size})
        return run, run.frame.run(SupervisedSteps(run.frame, run.examples, batch_size=5))

    starts = [copy.deepcopy(start) for _ in range(size)]
    ranks = each_rank(size, program)
    first, result = ranks[0]
    assert [told["steps"] for _run, told in ranks] == [3] * size
    assert first.series("loss")[-3:] == pytest.approx(alone.series("loss"), abs=1e-5)
    assert result["tokens"] == expected["tokens"]
    assert [result[name] for name in ("quality", "accuracy_low", "num_problems")] == [
        expected[name] for name in ("quality", "accuracy_low", "num_problems")]
    assert first.series("moe/balance_loss")[-3:] == pytest.approx(alone.series("moe/balance_loss"), abs=1e-4)
    states = [run.frame.policy().state_dict() for run, _result in ranks]
    for name, tensor in alone.frame.policy().state_dict().items():
        assert torch.allclose(states[0][name], tensor, atol=2e-5) and torch.equal(states[0][name], states[-1][name])
    metadata = verify(first.rundir.checkpoint(3))
    assert sorted(name for name in metadata["files"] if "rank_" in name) == [f"state/rank_0000{rank}.safetensors" for rank in range(size)]
