"""The phase `reward_model`: its loss is that of the papers, it learns, is measured on pairs, goes on exactly, ranks agree."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.config import RunConfig, RunPaths
from model_core.data.dataset import Row
from model_core.errors import CheckpointError, ConfigError, DataError
from model_core.evaluation.statistics import wilson
from model_core.reward_model import RewardTransformer
from model_core.reward_model.scoring import scores_of
from model_core.training.checkpoints import read_metadata
from model_core.training.layouts import Share
from model_core.training.pairs import CENTRE_SHARE, _summary, pair_passes
from model_core.training.reward_models import begin_reward_model, encode_pairs, training_pairs
from model_core.training.start import load_start
from model_core.training.world import World
from tests.model_core.reward_model.judges import PAIRS, Judging, judge_start
from tests.model_core.training.in_process import Attempt, model_start, write_dataset
from tests.model_core.training.ranks import CPU, each_rank


def slow_loss(model: RewardTransformer, pairs: Any, centre_coef: float) -> torch.Tensor:
    """Equation 1 of Ouyang et al., each text in a forward pass of its own, and the centring of Eisenstein et al."""
    losses = []
    for pair in pairs:
        chosen, rejected = (model(torch.tensor([document]), at_M=torch.tensor([len(document) - 1]))[0] for document in pair)
        losses.append(torch.log(1 + torch.exp(rejected - chosen)) + centre_coef * (chosen + rejected) ** 2)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("centre_coef", [0.0, 0.3])
@pytest.mark.parametrize("max_tokens", [20, 60, 4096])
def test_loss_and_gradients_are_the_papers_however_it_is_packed(centre_coef: float, max_tokens: int) -> None:
    start = judge_start()
    pairs = encode_pairs(start, PAIRS[:5])
    passes = pair_passes(pairs, max_tokens=max_tokens, share=Share(0, 1, is_teller=True), device=CPU, centre_coef=centre_coef)
    assert len(passes) > 1 or max_tokens > 60
    loss = sum(one(start.model) for one in passes)
    assert isinstance(loss, torch.Tensor) and isinstance(start.model, RewardTransformer)
    gradients = torch.autograd.grad(loss, list(start.model.parameters()), allow_unused=True)
    expected = slow_loss(start.model, pairs, centre_coef)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, list(start.model.parameters()), allow_unused=True), strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or theirs is None or torch.allclose(mine, theirs, atol=1e-5)


def test_it_learns_to_tell_and_says_so(learnt: Judging) -> None:
    run = learnt.run
    losses, accuracy = run.series("loss"), run.series("pairs/accuracy")
    assert losses[-1] < 0.5 * losses[0] and accuracy[-1] == 1.0
    for name in ("margin", "chosen", "rejected"):
        assert len(run.series(f"pairs/{name}")) == 12
    for margin, chosen, rejected in zip(*(run.series(f"pairs/{name}") for name in ("margin", "chosen", "rejected")), strict=True):
        assert margin == pytest.approx(chosen - rejected, abs=1e-6)
    before, *_during, after = run.told("evaluation")
    assert after["accuracy"] == after["quality"] == 1.0 > before["accuracy"] and after["num_problems"] == len(PAIRS)
    for name in ("accuracy", "quality"):
        assert (after[f"{name}_low"], after[f"{name}_high"]) == pytest.approx(wilson(12, 12))
    assert after["components"]["margin"] > 1 > abs(before["components"]["margin"])
    assert read_metadata(run.rundir.checkpoint(12))["metrics"]["quality_low"] == pytest.approx(wilson(12, 12)[0])


def test_the_centre_follows_the_mean_score(learnt: Judging) -> None:
    means = [(c + r) / 2 for c, r in zip(learnt.run.series("pairs/chosen"), learnt.run.series("pairs/rejected"), strict=True)]
    centre = means[0]
    for told, mean in zip(learnt.run.series("pairs/centre"), means, strict=True):
        centre += CENTRE_SHARE * (mean - centre)
        assert told == pytest.approx(centre, abs=1e-5)


def test_centring_keeps_scores_nearer_to_zero_and_is_not_in_the_loss(attempt: Attempt) -> None:
    """Its coefficient changes what is logged, and the first loss, which is of equal weights, stays."""
    free, held = (Judging(attempt, name, phase_config={"centre_coef": coefficient}) for name, coefficient in (("a", 0.0), ("b", 1.0)))
    for judging in (free, held):
        judging.train()
    assert held.run.series("loss")[0] == pytest.approx(free.run.series("loss")[0], abs=1e-5)
    assert not free.run.series("pairs/centring") and held.run.series("pairs/centring")[-1] < held.run.series("pairs/centring")[0]
    sums = [abs(j.run.series("pairs/chosen")[-1] + j.run.series("pairs/rejected")[-1]) for j in (free, held)]
    assert sums[1] < sums[0]


def test_a_resumed_one_is_bitwise_the_same(attempt: Attempt, learnt: Judging) -> None:
    resumed = Judging(attempt, resume_from=learnt.run.rundir.checkpoint(6))
    resumed.train()
    for name in ("loss", "pairs/centre", "pairs/margin"):
        assert resumed.run.series(name) == learnt.run.series(name)[6:]
    theirs = learnt.run.frame.whole().state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in resumed.run.frame.whole().state_dict().items())
    assert {"score.weight", "centre"} <= theirs.keys() and "lm_head.weight" not in theirs


def test_two_ranks_learn_what_one_learns(attempt: Attempt) -> None:
    values: dict[str, Any] = {"phase_config": {"steps": 3, "batch_size": 5, "max_micro_tokens": 80}, "held_out": {"num_problems": 9}}
    alone, start = Judging(attempt, "alone", **values), judge_start()
    expected = alone.train()
    Judging(attempt, "both", start=copy.deepcopy(start), **values)  # makes the directory
    starts = [copy.deepcopy(start) for _ in range(2)]

    def program(world: World) -> tuple[Judging, dict[str, Any]]:
        judging = Judging(attempt, "both", start=starts[world.rank], world=world, parallel={"num_processes": 2}, **values)
        return judging, judging.train()

    (first, result), (second, _) = each_rank(2, program)
    assert first.run.series("loss")[-3:] == pytest.approx(alone.run.series("loss"), abs=1e-5)
    for name in ("accuracy", "accuracy_low", "quality", "num_problems", "tokens"):
        assert result[name] == expected[name]
    states = [one.run.frame.whole().state_dict() for one in (first, second, alone)]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]) and torch.allclose(tensor, states[2][name], atol=2e-5)


def test_a_pair_that_cannot_be_judged_is_unscored_and_an_equal_one_is_not_right() -> None:
    scores = [(1.0, 0.0), (0.0, 0.0), (math.nan, 0.0), (0.0, math.inf), (2.0, 1.0)]
    told = _summary(list(zip(PAIRS, scores, strict=False)))
    assert (told["num_problems"], told["unscored"], told["accuracy"]) == (5, 2, pytest.approx(2 / 3))
    assert (told["accuracy_low"], told["accuracy_high"]) == pytest.approx(wilson(2, 3))
    assert told["components"]["margin"] == pytest.approx(2 / 3) and told["measures"]["quality"]["num"] == 3
    assert told["examples"][0]["completion"] == PAIRS[0].chosen and told["examples"][0]["rejected"] == PAIRS[0].rejected


def test_scores_do_not_depend_on_the_company() -> None:
    start = judge_start()
    documents = [document for pair in encode_pairs(start, PAIRS) for document in pair]
    alone = [scores_of(start.model, [document], device=CPU)[0] for document in documents]
    for max_tokens in (1, 40, 10_000):
        assert scores_of(start.model, documents, device=CPU, max_tokens=max_tokens) == pytest.approx(alone, abs=1e-5)


# --- what it starts with


def test_it_starts_from_a_language_model_or_goes_on_from_a_reward_model(attempt: Attempt, learnt: Judging) -> None:
    language = attempt("cold", phase_config={"steps": 1})
    language.train()
    begun = begin_reward_model(RunPaths(start_from=str(language.rundir.checkpoint(1))), seed=3)
    trunk = language.frame.policy().state_dict()
    assert all(torch.equal(tensor, trunk[name]) for name, tensor in begun.model.state_dict().items() if name.startswith("model."))
    again = begin_reward_model(RunPaths(start_from=str(language.rundir.checkpoint(1))), seed=3)
    assert torch.equal(begun.model.score.weight, again.model.score.weight)
    further = begin_reward_model(RunPaths(start_from=str(learnt.run.rundir.checkpoint(12))), seed=3)
    assert all(torch.equal(t, further.model.state_dict()[n]) for n, t in learnt.run.frame.whole().state_dict().items())


def test_no_other_phase_starts_from_it(learnt: Judging) -> None:
    with pytest.raises(CheckpointError, match="holds a reward model, which judges answers and writes none") as refused:
        load_start(learnt.run.rundir.checkpoint(12))
    assert refused.value.field == "start_from"
    with pytest.raises(ConfigError, match="it only judges"):
        learnt.run.frame.sampler()


def test_multi_token_prediction_is_left_out() -> None:
    assert model_start(num_nextn_predict_layers=1).model.next_token_block is not None
    start = judge_start(num_nextn_predict_layers=1)
    assert isinstance(start.model, RewardTransformer) and start.model.next_token_block is None


def test_what_is_missing_or_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="from a checkpoint; choose one") as refused:
        begin_reward_model(RunPaths(), seed=0)
    assert refused.value.field == "start_from"
    paths = RunPaths(dataset=str(write_dataset(tmp_path / "plain", [Row("1+2=", "3", "3")])))
    with pytest.raises(DataError, match="No row of the dataset has a chosen and a rejected answer"):
        training_pairs(paths)
    mixed = RunPaths(dataset=str(write_dataset(tmp_path / "mixed", [Row("1+2=", "3", "3"), PAIRS[0]])))
    assert training_pairs(mixed) == [PAIRS[0]]
    long = Row("1+2=", chosen="3" * 60, rejected="3")
    with pytest.raises(ConfigError, match="1 of 2 pairs do not fit into the 48 positions"):
        encode_pairs(judge_start(), [PAIRS[0], long])


@pytest.mark.parametrize(("metric", "is_known"), [("quality_low", True), ("accuracy", True), ("gsm8k", False), ("length", False)])
def test_its_gate_compares_what_it_measures(metric: str, is_known: bool) -> None:
    values = {"phase": "reward_model", "gate": {"metric": metric, "threshold": 0.7}}
    if is_known:
        assert RunConfig.parse(values).gate.metric == metric
        return
    with pytest.raises(ConfigError, match="A gate compares quality, accuracy") as refused:
        RunConfig.parse(values)
    assert refused.value.field == "gate.metric"


@pytest.mark.parametrize("layout", [{"pipeline": 2}, {"tensor": 2}])
def test_a_layout_that_cuts_the_texts_is_refused(layout: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="head reads whole texts"):
        RunConfig.parse({"phase": "reward_model", "parallel": {"num_processes": 2, **layout}})
