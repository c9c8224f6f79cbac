"""What is stored of many rollouts: a bounded sample by a rule that can be told, the same each time."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.data.dataset import Row
from model_core.grpo.rollouts import Group, Rollout
from model_core.grpo.storing import store
from model_core.scoring import Scored
from model_core.sources.rollouts import Rollouts


def groups_of(rewards: list[list[float | None]]) -> list[Group]:
    return [
        Group(Row(f"p{number}", answer="1"), [1], [Rollout([3], [0.0], "stop", f"t{i}", Scored(reward, {}, True, "")) for i, reward in
                                                   enumerate(of_one)])
        for number, of_one in enumerate(rewards)
    ]  # fmt: skip


def stored(path: Path, groups: list[Group], **limits: Any) -> list[dict[str, Any]]:
    num = store(path, groups, **{"seed": 3, **limits})
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    assert len(lines) == num
    return lines


def test_what_fits_is_stored_whole_and_says_nothing_of_a_sample(tmp_path: Path) -> None:
    lines = stored(tmp_path / "s" / "a.jsonl.gz", groups_of([[1.0, 0.0]] * 4), max_rollouts=8)
    assert [line["prompt"] for line in lines] == ["p0", "p1", "p2", "p3"] and all("sampled_from" not in line for line in lines)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=2), min_size=5, max_size=30), st.integers(6, 9))
def test_a_sample_is_bounded_and_has_the_best_the_worst_and_a_flat_group(
    tmp_path_factory: pytest.TempPathFactory, rewards: list[list[float | None]], limit: int
) -> None:
    directory, groups = tmp_path_factory.mktemp("s"), groups_of(rewards)
    lines = stored(directory / "a", groups, max_rollouts=limit)
    assert sum(len(line["completions"]) for line in lines) in {limit, limit - 1}
    assert all(line["sampled_from"] == {"num_groups": len(groups), "num_rollouts": 2 * len(groups)} for line in lines)
    means, of_all = ([sum(group) for group in many] for many in ([[c["reward"] for c in line["completions"]] for line in lines], rewards))
    assert max(means) == max(of_all) and min(means) == min(of_all)
    assert any(group.is_flat for group in groups) == any(len({c["reward"] for c in line["completions"]}) == 1 for line in lines)
    order = [int(line["prompt"][1:]) for line in lines]
    assert order == sorted(order) and lines == stored(directory / "b", groups, max_rollouts=limit)


def test_bytes_bound_it_too_and_the_telling_groups_are_stored_however_large(tmp_path: Path) -> None:
    groups = groups_of([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [None, None], [0.0, 1.0]])
    assert [line["prompt"] for line in stored(tmp_path / "a", groups, max_bytes=1)] == ["p1", "p2"]
    assert len(stored(tmp_path / "b", groups, max_bytes=10**6)) == 5


def test_a_sample_is_a_source_like_any_file_of_rollouts(tmp_path: Path) -> None:
    stored(tmp_path / "step.jsonl.gz", groups_of([[1.0, 0.0]] * 9), max_rollouts=6)
    assert len(list(Rollouts(Rollouts.Config()).rows(tmp_path))) == 3
