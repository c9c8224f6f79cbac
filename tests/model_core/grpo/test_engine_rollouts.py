"""GRPO on an engine's rollouts, over real HTTP: what the trainer computes, learnt as in process; and every way to end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model_core.config import RewardConfig
from model_core.data.tokenizer import encode_rows
from model_core.errors import ConfigError, EngineError
from model_core.grpo.engine_rollouts import EngineRollouts
from model_core.grpo.rollouts import Sampling, collect
from model_core.grpo.steps import PolicySteps
from model_core.model import save_pretrained
from model_core.phases.reinforcement import Reinforcement
from model_core.rollout import remote
from model_core.rollout.digest import weights_digest
from model_core.rollout.remote import ENGINES
from model_core.rundir import RunDir
from model_core.scoring import Rubric
from model_core.serving.backend import ModelBackend
from model_core.training.world import World
from tests.model_core.grpo.test_policy_steps import SHORT, reinforcement, weights
from tests.model_core.rollout.engines import KEY, Told, builtin, listening
from tests.model_core.training.in_process import ROWS, Attempt, Run, model_start
from tests.model_core.training.ranks import each_rank

Engine = tuple[str, ModelBackend]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """It starts with other weights than any run here."""
    start, directory = model_start(seed=9), tmp_path_factory.mktemp("served") / "model"
    save_pretrained(start.model, directory, start.tokenizer)
    with builtin(directory) as made:
        yield made


def on(attempt: Attempt, monkeypatch: pytest.MonkeyPatch, url: str, **settings: Any) -> tuple[Run, PolicySteps]:
    monkeypatch.setenv(ENGINES, f"http://other:1=x {url}={KEY}")
    return reinforcement(attempt, rollout="endpoint", rollout_url=url, **{"rollout_seconds": 20.0, **settings})


def exports(run: Run) -> list[str]:
    return sorted(path.name for path in (run.rundir.path / "engine_weights").glob("*"))


def test_the_engines_log_probabilities_are_the_trainers(attempt: Attempt, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    run, steps = on(attempt, monkeypatch, engine[0], num_minibatches=1, max_canary_difference=1e-4, adamw_lr=0.01, warmup_steps=0)
    for step in range(3):
        digest = weights_digest(run.frame.policy().state_dict())
        outcome = steps(step)
        assert outcome is not None and engine[1].weight_version == digest
        values = outcome.values
        assert values["train_rollout_logprob_diff/max"] < 1e-4 and values["aborted_ratio"] == 0.0  # type: ignore[operator]
        assert values["staleness/avg_age"] == 0.0 and values["perf/sync_s"] > 0.0  # type: ignore[operator]
        assert exports(run) == [f"step_{step:08d}"], "old ones are deleted"
    steps.close()
    assert not (run.rundir.path / "engine_weights").exists()


def test_what_is_rewarded_becomes_more_frequent(attempt: Attempt, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    run, steps = on(attempt, monkeypatch, engine[0], steps=12, prompts_per_step=6, group_size=8, adamw_lr=0.01, warmup_steps=0)
    result = run.frame.run(steps)
    assert result["ended_by"] == "steps"
    rewards = run.series("reward/total")
    assert rewards[0] < 0.5 and rewards[-1] > rewards[0] + 0.2


def test_truncated_importance_sampling_takes_the_engines_probabilities(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    """Weights near 1, for both compute the same: the update is that without them, nearly."""
    moved = []
    for name, cap in (("plain", 0.0), ("capped", 2.0)):
        run, steps = on(attempt, monkeypatch, engine[0], name=name, importance_cap=cap, num_minibatches=1)
        before = weights(run)
        outcome = steps(0)
        assert outcome is not None
        moved.append([after - old for old, after in zip(before, weights(run), strict=True)])
        assert outcome.values["train_rollout_ratio/max"] == pytest.approx(1.0, abs=1e-4)
        assert ("perf/logprob_s" in outcome.values) and outcome.values["perf/logprob_s"] >= 0.0  # type: ignore[operator]
    assert any(bool(one.any()) for one in moved[0])
    for one, other in zip(*moved, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=2e-5)


def test_an_engine_that_computes_otherwise_ends_the_run(attempt: Attempt, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    """Right weights, wrong computation: only the canary finds it."""
    url, backend = engine
    run, steps = on(attempt, monkeypatch, url)
    real, before = backend.sampler.replace, weights(run)

    def spoiling(model: Any) -> None:
        with torch.no_grad():
            model.lm_head.weight.mul_(1.1)
        real(model)

    monkeypatch.setattr(backend.sampler, "replace", spoiling)
    result = run.frame.run(steps)
    assert result["ended_by"] == "stop" and result["steps"] == 0 and "canary prompt" in result["reason"] and url in result["reason"]
    assert "max_canary_difference 0.05" in result["reason"] and not run.told("rollouts")
    assert all(torch.equal(one, other) for one, other in zip(before, weights(run), strict=True))
    assert (run.rundir.path / result["final_checkpoint"] / "COMPLETE").is_file()


def test_an_engine_that_dies_ends_the_run_at_the_last_whole_step(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    run, steps = on(attempt, monkeypatch, engine[0])

    def one_step(step: int) -> Any:
        if step == 2:
            monkeypatch.setattr(steps._engine._engine, "url", "http://127.0.0.1:9")  # type: ignore[union-attr]
        return steps(step)

    result = run.frame.run(one_step)
    assert result["ended_by"] == "stop" and result["steps"] == 2 and "does not answer" in result["reason"]
    assert result["reason"].startswith("Step 3 was given up") and len(run.told("rollouts")) == 2


def test_weights_of_another_end_the_run(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    told: Told = Told(lambda body: told.said(body, version="somebody else's"))
    with listening(told.application()) as url:
        run, steps = on(attempt, monkeypatch, url, max_canary_difference=9.0)
        result = run.frame.run(steps)
    assert result["ended_by"] == "stop" and "somebody else" in result["reason"]


def test_a_run_is_stopped_while_it_waits(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for the engine, has it end what nobody wants any more, and counts no half step."""


    async def when_aborted(body: dict[str, Any]) -> Any:
        run.rundir.ask_to_stop("Enough.")
        while len(told.aborted) < 12:
            await asyncio.sleep(0.01)
        return told.said(body)

    def answer(body: dict[str, Any]) -> Any:
        return told.said(body) if len(body["rid"]) == 1 else when_aborted(body)

    told: Told = Told(answer)
    with listening(told.application()) as url:
        run, steps = on(attempt, monkeypatch, url, max_canary_difference=9.0)
        result = run.frame.run(steps)
        assert (result["ended_by"], result["reason"], result["steps"]) == ("stop", "Enough.", 0)
        assert len(told.aborted) == len(set(told.aborted)) == 12, "three groups of four"


def test_aborted_completions_are_counted_and_unscored(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(body: dict[str, Any]) -> Any:
        items = told.said(body)
        for item in items[1:2]:
            item["meta_info"]["finish_reason"]["type"] = "abort"
        return items

    told: Told = Told(answer)
    with listening(told.application()) as url:
        run, steps = on(attempt, monkeypatch, url, max_canary_difference=9.0)
        outcome = steps(0)
    assert outcome is not None
    values = outcome.values
    assert values["aborted_ratio"] == 0.25 and values["reward/efficiency/unscored"] == 3.0
    assert values["reward/total"] == 1.0, "that of those that were finished: the shortest there are"
    assert values["len/mean"] == values["len/min"] == 1.0
    assert run.told("fallback")[0]["message"].startswith("The engine tells no checksum")


def test_ranks_share_one_engine_and_hear_alike_of_its_failure(monkeypatch: pytest.MonkeyPatch, engine: Engine, tmp_path: Path) -> None:
    """The first rank alone gives it weights; every rank asks its own prompts and has all groups; none waits for another."""
    monkeypatch.setenv(ENGINES, f"{engine[0]}={KEY}")
    start, rubric = model_start(seed=3), Rubric(RewardConfig.parse(SHORT))
    encoded = encode_rows(start.tokenizer, ROWS)
    problems = [(row, prompt) for row, (prompt, _completion) in zip(ROWS[:5], encoded, strict=False)]
    given = {"rollout": "endpoint", "rollout_url": engine[0], "max_new_tokens": 8, "max_canary_difference": 1e-3}
    told: list[str] = []

    def program(world: World) -> Any:
        frame: Any = SimpleNamespace(
            world=world, policy=lambda: start.model, tokenizer=start.tokenizer, stop_reason=str,
            context=SimpleNamespace(rundir=RunDir(tmp_path)), reporter=None)
        rollouts_of = EngineRollouts.of(frame, Reinforcement.Config.parse(given), problems)
        sampler = rollouts_of.sampler(0)
        found = collect(sampler, start.tokenizer, problems, sampling=Sampling(2, 8), rubric=rubric, world=world, seed=1)
        if not world.is_first:
            sampler.url = "http://127.0.0.1:9"
        failed = collect(sampler, start.tokenizer, problems, sampling=Sampling(2, 8), rubric=rubric, world=world, seed=1)
        assert not failed.groups and "nobody answers" in failed.failure
        if world.is_first:
            sampler.version, rollouts_of._weights.tolerance = "", 1e-30  # type: ignore[union-attr]
        with pytest.raises(EngineError, match="canary") as caught:
            rollouts_of.sampler(1)
        told.append(caught.value.message)
        return [[(r.tokens, r.logprobs) for r in group.rollouts] for group in found.groups], [g.row for g in found.groups]

    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(remote, "MAX_PAUSE_SECONDS", 0.01)
    one, other = each_rank(2, program)
    assert one == other and one[1] == [row for row, _prompt in problems] and told[0] == told[1]


@pytest.mark.parametrize(("named", "why"), [
    ("", "not among the engines"), ("http://127.0.0.1:8=k", "not among the engines"), ("http://127.0.0.1:9=k", "does not answer"),
])
def test_an_engine_that_may_not_be_used_is_refused_at_its_field(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, named: str, why: str
) -> None:
    monkeypatch.setenv(ENGINES, named)
    with pytest.raises(ConfigError, match=why) as caught:
        reinforcement(attempt, rollout="endpoint", rollout_url="http://127.0.0.1:9")
    assert caught.value.field == "phase_config.rollout_url"


def test_a_key_is_in_no_file_of_the_run(attempt: Attempt, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    run, steps = on(attempt, monkeypatch, engine[0], steps=1)
    run.frame.run(steps)
    files: list[Path] = [path for path in run.rundir.path.rglob("*") if path.is_file()]
    assert files and not any(KEY.encode() in path.read_bytes() for path in files)


@pytest.mark.parametrize(("values", "field"), [
    ({"rollout": "endpoint"}, "rollout_url"), ({"rollout_url": "http://a:1"}, "rollout_url"),
    ({"rollout": "endpoint", "rollout_url": "file:///etc"}, "rollout_url"), ({"rollout_requests": 0}, "rollout_requests"),
])
def test_settings_that_cannot_be_are_refused(values: dict[str, Any], field: str) -> None:
    from model_core.phases import PHASES

    with pytest.raises(ConfigError) as caught:
        PHASES.get("reinforcement").Config.parse(values)
    assert caught.value.field == field
