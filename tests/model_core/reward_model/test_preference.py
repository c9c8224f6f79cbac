"""The reward `preference`: bounded, deterministic, one of many parts, and unscored where it cannot judge."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.config import RewardConfig, RunConfig
from model_core.errors import CheckpointError, ConfigError, DataError
from model_core.grpo import chains
from model_core.grpo.steps import PolicySteps
from model_core.recipes import r1_recipe
from model_core.rescoring import rescore
from model_core.reward_model.scoring import Scorer
from model_core.rewards._types import Sample
from model_core.rewards.preference import Preference
from model_core.scoring import Rubric
from tests.model_core.reward_model.judges import PAIRS, Judging
from tests.model_core.training.in_process import ROWS, Attempt, model_start
from tests.model_core.training.ranks import CPU


def sample(prompt: str, completion: str) -> Sample:
    return Sample(prompt, completion, None, "", len(completion), "stop")


BOTH = [sample(row.prompt, str(text)) for row in PAIRS for text in (row.chosen, row.rejected)]


@pytest.fixture
def checkpoint(learnt: Judging) -> str:
    return str(learnt.run.rundir.checkpoint(12))


def test_it_prefers_what_it_has_learnt_to_and_is_the_sigmoid_of_score_less_centre(checkpoint: str) -> None:
    scores = Preference(Preference.Config(checkpoint=checkpoint)).score_many(BOTH)
    scorer = Scorer(checkpoint, CPU)
    raw = scorer.scores([(one.prompt, one.completion) for one in BOTH])
    for score, number in zip(scores, raw, strict=True):
        assert number is not None and score.value == pytest.approx(1 / (1 + math.exp(scorer.centre - number)))
        assert 0 <= score.value <= 1 and "centre" in score.detail
    values = [score.value or 0.0 for score in scores]
    assert all(chosen > 0.5 > rejected for chosen, rejected in zip(values[0::2], values[1::2], strict=True))


def test_it_is_deterministic_whatever_the_company(checkpoint: str) -> None:
    reward = Preference(Preference.Config(checkpoint=checkpoint))
    together = [score.value for score in reward.score_many(BOTH)]
    assert together == [score.value for score in Preference(Preference.Config(checkpoint=checkpoint)).score_many(BOTH)]
    assert [reward(one).value for one in BOTH] == pytest.approx(together, abs=1e-6)
    assert reward.score_many([]) == []


def test_what_it_cannot_judge_is_unscored(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = Preference(Preference.Config(checkpoint=checkpoint))
    long, short = reward.score_many([sample("1+2=", "3" * 60), sample("1+2=", "3")])
    assert long.value is None and "longer than the 48 tokens" in long.detail and short.value is not None
    monkeypatch.setattr(Scorer, "scores", lambda _self, texts: [math.nan] * len(texts))
    assert reward(sample("1+2=", "3")).value is None and "gives nan" in reward(sample("1+2=", "3")).detail
    assert Preference()(sample("1+2=", "3")).value is None


def test_it_reads_the_answer_alone_where_asked(checkpoint: str) -> None:
    whole, answer = (Preference(Preference.Config(checkpoint=checkpoint, reads=reads)) for reads in ("completion", "answer"))
    thought, bare = sample("1+2=", "<think>1+2=3</think>3"), sample("1+2=", "3")
    assert answer(thought) == answer(bare) == whole(bare) != whole(thought)


def test_a_reward_that_names_no_reward_model_is_refused_at_its_field() -> None:
    with pytest.raises(ConfigError, match="cannot judge without it; name the directory") as refused:
        RunConfig.parse({"phase": "cold_start", "reward": {"weights": {"format": 1.0, "preference": 1.0}}})
    assert refused.value.field == "reward.settings.preference.checkpoint"


def test_a_checkpoint_that_is_none_is_said_at_its_field(attempt: Attempt, checkpoint: str, tmp_path: Path) -> None:
    other = attempt("cold", phase_config={"steps": 1})
    other.train()
    for directory, words in ((tmp_path, "no COMPLETE marker"), (other.rundir.checkpoint(1), "of the phase cold_start, which makes no")):
        with pytest.raises(CheckpointError, match=words) as refused:
            Preference(Preference.Config(checkpoint=str(directory)))(BOTH[0])
        assert refused.value.field == "reward.settings.preference.checkpoint"


def reward_with(checkpoint: str, **values: Any) -> dict[str, Any]:
    return {"weights": {"format": 1.0, "preference": 0.5}, "settings": {"preference": {"checkpoint": checkpoint}}, **values}


def test_it_is_a_part_of_the_sum_and_stored_rollouts_are_scored_by_it(checkpoint: str, tmp_path: Path) -> None:
    config = RewardConfig.parse(reward_with(checkpoint, from_step={"preference": 300}))
    rubric = Rubric(config)
    for scored in rubric.score(BOTH):
        parts = scored.components
        assert scored.total == pytest.approx((parts["format"] or 0) + 0.5 * (parts["preference"] or 0))
    completions = [{"text": one.completion, "num_tokens": 5, "finish_reason": "stop", "reward": 0.0, "components": {}} for one in BOTH[:2]]
    line = {"prompt": BOTH[0].prompt, "answer": None, "task": "", "meta": {}, "completions": completions}
    (tmp_path / "step_00000001.jsonl.gz").write_bytes(gzip.compress(json.dumps(line).encode()))
    (step,) = rescore(tmp_path, config)
    after = [one["after"] for one in step["groups"][0]["completions"]]
    assert after == pytest.approx([scored.total for scored in rubric.score(BOTH[:2])], abs=1e-6)


def test_in_reinforcement_it_begins_at_its_step(attempt: Attempt, checkpoint: str) -> None:
    """Before it the metric is not there and the reward is that of the rest; what is measured is always the whole reward."""
    start = model_start()
    with torch.no_grad():
        start.model.lm_head.weight.normal_(0, 0.2)
    settings = {"steps": 4, "prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8, "kl_probe": 0}
    run = attempt("rl", start=start, phase="reinforcement", phase_config=settings, reward=reward_with(checkpoint, from_step={"preference": 3}))
    run.frame.run(PolicySteps(run.frame, run.settings, [(row, prompt) for row, (prompt, _c) in zip(ROWS, run.examples, strict=True)], None))
    told = [event["values"] for event in run.told("scalars") if "reward/total" in event["values"]]
    assert [values.get("reward/preference/mean") is not None for values in told] == [False, False, True, True]
    for values in told:
        assert values["reward/total"] == pytest.approx(
            values["reward/format/mean"] + 0.5 * values.get("reward/preference/mean", 0.0), abs=1e-6)
    assert all("preference" in event["components"] for event in run.told("evaluation"))


def test_the_paper_adds_it_late_in_the_second_reinforcement_and_only_where_there_is_one() -> None:
    plain, with_one = r1_recipe(), r1_recipe(reward_model="/judge")
    changed = [one.name for one, other in zip(plain, with_one, strict=True) if one != other]
    assert changed == ["all-scenarios"]
    config = RunConfig.parse(with_one[3].config)
    assert config.reward.settings["preference"]["checkpoint"] == "/judge" and config.reward.weights["preference"] == 1.0
    late = config.phase_config["steps"] - config.reward.from_step["preference"] + 1
    assert late / config.phase_config["steps"] == pytest.approx(400 / 1700, abs=0.02)
    assert "preference" not in RunConfig.parse(plain[3].config).reward.weights


def test_rejection_sampling_ranks_by_it(attempt: Attempt, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sampled completion has its score; this model knows nothing, so that none of them is kept."""
    monkeypatch.setattr(chains, "load_start", lambda _checkpoint: model_start())
    settings = {"steps": 1, "batch_size": 2, "num_samples": 2, "max_new_tokens": 6, "prefer": "best_reward"}
    run = attempt("sampling", phase="rejection_sampling", phase_config=settings, reward=reward_with(checkpoint))
    with pytest.raises(DataError, match="Not one sampled chain could be kept"):
        chains.chains_of(run.frame, run.settings, ROWS[:2])
    (file,) = run.rundir.samples.iterdir()
    stored = [one for line in gzip.decompress(file.read_bytes()).splitlines() for one in json.loads(line)["completions"]]
    assert len(stored) == 4
    for one in stored:
        assert one["reward"] == pytest.approx(one["components"]["format"] + 0.5 * one["components"]["preference"])
