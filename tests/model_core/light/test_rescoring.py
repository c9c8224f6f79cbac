"""Stored rollouts under the reward that they were scored by give what is stored; another reward gives what it says alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from model_core.__main__ import main
from model_core.config import RewardConfig
from model_core.errors import DataError
from model_core.rescoring import rescore, reweigh
from model_core.rewards._types import Sample
from model_core.scoring import Rubric

TEXTS = ("<think>1+2=3</think>3", "<think>1+2=4</think>3", "3", "<think>1+", "<think>1+2=3;3=3</think>4")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Two steps as a run stores them, scored by the article's reward."""
    rubric = Rubric(RewardConfig.parse("article"))
    for step in (1, 2):
        samples = [Sample("1+2=", text, "3", "sums", 10 * step + len(text), "stop") for text in TEXTS]
        completions = [
            {"text": one.completion, "num_tokens": one.num_tokens, "finish_reason": one.finish_reason, "correct": scored.correct,
             "reward": scored.total, "components": scored.components, "advantage": None}
            for one, scored in zip(samples, rubric.score(samples), strict=True)
        ]  # fmt: skip
        path = tmp_path / "samples" / f"step_{step:08d}.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        with gzip.open(path, "wt") as file:
            file.write(json.dumps({"prompt": "1+2=", "answer": "3", "task": "sums", "meta": {}, "completions": completions}) + "\n")
    return tmp_path


def test_the_same_reward_changes_nothing(run_dir: Path) -> None:
    steps = list(rescore(run_dir / "samples", RewardConfig.parse("article")))
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        assert step["before"] == pytest.approx(step["after"]) and step["other_best"] == 0 and step["num_rollouts"] == len(TEXTS)
        for one in step["groups"][0]["completions"]:
            assert one["before"] == pytest.approx(one["after"]) and one["components_before"] == one["components_after"]


def test_another_reward_says_what_it_says_alone(run_dir: Path) -> None:
    reward = RewardConfig.parse("r1_zero")
    (first, _second) = rescore(run_dir / "samples", reward)
    alone = Rubric(reward).score([Sample("1+2=", text, "3", "sums", 10 + len(text), "stop") for text in TEXTS])
    assert [one["after"] for one in first["groups"][0]["completions"]] == [scored.total for scored in alone]
    assert [one["after"] for one in first["groups"][0]["completions"]] == [2.0, 2.0, 1.0, 0.0, 1.0]


def test_the_command_prints_a_line_a_step_and_writes_all(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_dir / "out.json"
    assert main(["rescore", str(run_dir), "--reward", '{"weights": {"format": 1.0}}', "--json", str(out)]) == 0
    assert capsys.readouterr().out.count("another best in") == 2
    assert json.loads(out.read_text())["reward"]["weights"] == {"format": 1.0}


@pytest.mark.parametrize("reward", ["nothing", "{", '{"weights": {"nothing": 1}}'])
def test_what_is_no_reward_is_a_sentence(run_dir: Path, reward: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", str(run_dir), "--reward", reward]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_without_rollouts_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rollouts"):
        list(rescore(tmp_path, RewardConfig()))
    (tmp_path / "step_1.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "x"}\n'))
    broken: Any = rescore(tmp_path, RewardConfig())
    with pytest.raises(DataError, match="no group of rollouts"):
        next(broken)


def stored(run_dir: Path, step: int = 1) -> list[dict[str, Any]]:
    with gzip.open(run_dir / "samples" / f"step_{step:08d}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def other_weights() -> list[dict[str, float]]:
    own = RewardConfig.parse("article").weights
    names = list(own)
    return [dict(own), dict.fromkeys(names, 1.0), {names[0]: 2.0}, {names[1]: -1.0, names[2]: 0.5}, {**own, names[0]: 0.0}]


@pytest.mark.parametrize("weights", other_weights())
def test_weighing_again_is_scoring_again(weights: dict[str, float], run_dir: Path) -> None:
    (again, _second) = rescore(run_dir / "samples", RewardConfig.parse({"weights": {n: w for n, w in weights.items() if w}}))
    weighed = reweigh(stored(run_dir), weights)
    assert weighed["after"] == pytest.approx(again["after"]) and weighed["before"] == pytest.approx(again["before"])
    assert weighed["other_best"] == again["other_best"] and weighed["unscored"] == again["unscored"]
    for one, other in zip(weighed["groups"][0]["completions"], again["groups"][0]["completions"], strict=True):
        assert one["after"] == pytest.approx(other["after"])


def test_a_component_that_said_nothing_leaves_a_hole_only_where_it_counts() -> None:
    group = {"prompt": "p", "completions": [
        {"text": "a", "reward": None, "components": {"format": 1.0, "length": None}},
        {"text": "b", "reward": 1.0, "components": {"format": 1.0, "length": 0.5}},
    ]}  # fmt: skip
    counts, left_out = reweigh([group], {"format": 1.0, "length": 1.0}), reweigh([group], {"format": 1.0, "length": 0.0})
    assert counts["unscored"] == 1 and counts["after"] == 1.5 and counts["flat_after"] == 1
    assert left_out["unscored"] == 0 and left_out["after"] == 1.0 and left_out["flat_after"] == 1


def test_one_that_had_not_begun_adds_nothing() -> None:
    early = {"prompt": "p", "completions": [{"text": "a", "reward": 1.0, "components": {"format": 1.0}}]}
    assert reweigh([early], {"format": 2.0, "length": 5.0})["after"] == 2.0
    assert reweigh([early], {"length": 5.0})["after"] == 0.0
