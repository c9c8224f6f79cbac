"""The held-out loss: that of a slow twin, the same on any number of ranks, and what a gate on it decides."""

from __future__ import annotations

import copy
import math
import statistics
from typing import Any

import pytest
import torch

from model_core.data.dataset import Row
from model_core.errors import ConfigError
from model_core.gates import judge
from model_core.training.held_out_loss import demonstrations, held_out_loss, losses
from model_core.training.world import World
from tests.model_core.training.in_process import ROWS, Attempt, model_start
from tests.model_core.training.ranks import ALONE, CPU, each_rank

START = model_start()
TOLD = demonstrations(START.tokenizer, ROWS, limit=48)


def slow_loss(prompt: list[int], completion: list[int]) -> float:
    """The mean of −log p of the completion's tokens, a forward pass for each."""
    found = []
    for place, token in enumerate(completion):
        logits_V = START.model(torch.tensor([prompt + completion[:place]]))[0, -1]
        found.append(-float(logits_V.log_softmax(dim=-1)[token]))
    return statistics.fmean(found)


@pytest.mark.parametrize("max_tokens", [1, 60, 4096])
def test_it_is_that_of_the_completions_tokens_alone_however_it_is_packed(max_tokens: int) -> None:
    with torch.no_grad():
        expected = [slow_loss(*one) for one in TOLD]
    assert losses(START.model, TOLD, device=CPU, max_tokens=max_tokens) == pytest.approx(expected, abs=1e-5)


def test_a_demonstration_ends_with_its_end_token_and_must_fit() -> None:
    assert len(TOLD) == len(ROWS) and all(completion[-1] == START.tokenizer.eos_token_id for _prompt, completion in TOLD)
    longest = max(len(prompt) + len(completion) for prompt, completion in TOLD)
    rows = [*ROWS, Row("1+2=", answer="3")]
    assert len(demonstrations(START.tokenizer, rows, limit=longest)) == len(ROWS)
    assert len(demonstrations(START.tokenizer, rows, limit=longest - 1)) < len(ROWS)


@pytest.mark.parametrize("size", [2, 5])
def test_ranks_share_the_demonstrations_and_all_know_what_one_would_have_measured(size: int) -> None:
    def measured(world: World) -> dict[str, Any]:
        return held_out_loss(copy.deepcopy(START.model), TOLD, world=world, max_tokens=50)

    alone, ranks = measured(ALONE), each_rank(size, measured)
    assert all(told == ranks[0] for told in ranks) and ranks[0] == pytest.approx(alone, abs=1e-6)
    assert alone["num"] == len(ROWS) and alone["low"] < alone["value"] < alone["high"]


def test_a_loss_that_is_not_finite_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([1.0, math.nan, math.inf, 3.0])
    monkeypatch.setattr("model_core.training.held_out_loss.losses", lambda _model, told, **_how: [next(found) for _one in told])
    told = held_out_loss(START.model, TOLD[:4], world=ALONE, max_tokens=50)
    assert (told["value"], told["num"]) == (2.0, 2)


def test_a_run_measures_it_and_its_gate_is_decided_on_it(attempt: Attempt) -> None:
    """Training lowers it; between what was before and what is after, the gate passes what learnt and holds what did not."""
    gate = {"metric": "loss", "threshold": 2.0, "direction": "at_most"}
    run = attempt(phase_config={"steps": 60, "batch_size": 12, "warmup_steps": 1}, held_out={"num_problems": 12}, gate=gate)
    result = run.train()
    before, after = run.told("evaluation")
    assert run.series("eval/loss") == [told["measures"]["loss"]["value"] for told in (before, after)]
    assert result["measures"]["loss"] == after["measures"]["loss"] and after["measures"]["loss"]["num"] == 12
    assert after["measures"]["loss"]["value"] < 0.5 * before["measures"]["loss"]["value"]
    assert judge(run.config.gate, before).passed is False and judge(run.config.gate, result).passed is True


def test_without_demonstrations_there_is_none_and_a_gate_on_it_is_refused_before_the_start(attempt: Attempt) -> None:
    rows = [Row(row.prompt, answer=row.answer, task=row.task) for row in ROWS]
    bare = attempt("bare", rows=rows)
    told = bare.frame.measure("before")
    assert told is not None and "loss" not in told["measures"] and not bare.series("eval/loss")
    with pytest.raises(ConfigError, match="no held-out row of the dataset has a demonstration") as refused:
        attempt("gated", rows=rows, gate={"metric": "loss", "threshold": 1.0, "direction": "at_most"})
    assert refused.value.field == "gate.metric"
