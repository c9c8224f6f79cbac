"""Stored rollouts: a prompt over the steps, the components together, and the reward under other weights."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from model_core.errors import DataError
from model_core.rescoring import best, reweigh
from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_run
from tests.training_app.stored_rollouts import store
from training_app import selectors
from training_app.models import PhaseRun, RunAttempt
from training_app.selectors import rollouts
from training_app.selectors.reward_readings import Kept, best_of, columns_of, correlation, reweighed, scores_of
from training_app.views.runs_new import _with_weights

pytestmark = pytest.mark.django_db


def group(prompt: str, *scores: tuple[float, float | None]) -> dict[str, Any]:
    """A group whose completions have these scores of right and short; half and half is their reward."""
    return {"prompt": prompt, "answer": "2", "task": "sums", "completions": [
        {"text": f"{prompt}{place}", "correct": right >= 1, "num_tokens": 10 + place, "finish_reason": "stop", "advantage": None,
         "reward": None if short is None else (right + short) / 2, "components": {"right": right, "short": short}}
        for place, (right, short) in enumerate(scores)
    ]}  # fmt: skip


@pytest.fixture
def attempt(project: Project, alice: User, node: Node) -> RunAttempt:
    run = make_run(project, alice, state="succeeded")
    PhaseRun.objects.filter(pk=run.pk).update(config={**run.config, "reward": {"weights": {"right": 0.5, "short": 0.5}}})
    run.refresh_from_db()
    made = make_attempt(run, node, state="succeeded")
    store(made, 1, [group("1+1", (1.0, 0.1), (0.0, 0.9)), group("2+2", (1.0, 0.5), (1.0, 0.5))])
    store(made, 2, [group("3+3", (0.0, 0.2), (1.0, None)), group("1+1 ", (1.0, 1.0))])
    store(made, 4, [group('say "ü" \\n', (1.0, 0.0)), group("1+1", (1.0, 0.2), (1.0, 0.8))])
    return made


def test_a_prompt_is_found_at_every_step_that_asked_it_and_no_other_is(attempt: RunAttempt) -> None:
    found = selectors.run_prompt(attempt.run, step=4, group=1)
    assert [one["step"] for one in found["found"]] == [1, 4] and found["prompt"] == "1+1" and found["answer"] == "2"
    assert [len(one["group"]["completions"]) for one in found["found"]] == [2, 2] and found["num_read"] == found["num_steps"] == 3
    assert [one["step"] for one in selectors.run_prompt(attempt.run, step=4, group=0)["found"]] == [4]


def test_a_group_that_is_not_there_is_said(attempt: RunAttempt) -> None:
    for step, place, field in ((3, 0, "step"), (1, 2, "group")):
        with pytest.raises(DataError) as refused:
            selectors.run_prompt(attempt.run, step=step, group=place)
        assert refused.value.field == field


def test_of_many_steps_some_are_read_with_both_ends_and_the_one_that_is_asked_for(
    attempt: RunAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(5, 60):
        store(attempt, step, [group("1+1", (1.0, 0.0))])
    monkeypatch.setattr(rollouts, "MAX_STEPS", 10)
    found = selectors.run_prompt(attempt.run, step=33, group=0)
    read = [one["step"] for one in found["found"]]
    assert {1, 33, 59} <= set(read) and found["num_read"] <= 11 and found["num_steps"] == 58


def test_when_time_is_up_it_answers_with_what_it_has(attempt: RunAttempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "MAX_SECONDS", -1.0)
    assert selectors.run_prompt(attempt.run, step=1, group=0)["num_read"] == 0
    assert selectors.run_rewards(attempt.run)["steps"] == []


def test_the_own_weights_change_nothing(attempt: RunAttempt) -> None:
    told = selectors.run_rewards(attempt.run)
    assert [step["step"] for step in told["steps"]] == [1, 2, 4] and told["components"] == ["right", "short"]
    for step in told["steps"]:
        assert step["before"] == pytest.approx(step["after"]) and step["other_best"] == 0
        assert step["flat_before"] == step["flat_after"]
    assert told["examples"] == [] and told["num_rollouts"] == 10


def test_other_weights_say_what_would_have_been_preferred(attempt: RunAttempt) -> None:
    told = selectors.run_rewards(attempt.run, weights={"right": 0.0, "short": 1.0})
    first, second, third = told["steps"]
    assert first["after"] == pytest.approx(0.5) and first["other_best"] == 1 and first["flat_after"] == 1
    assert second["unscored"] == 1 and third["after"] == pytest.approx(1 / 3)
    only_right = selectors.run_rewards(attempt.run, weights={"right": 1.0})
    assert [step["other_best"] for step in only_right["steps"]] == [0, 1, 1]
    assert {example["step"] for example in only_right["examples"]} == {2, 4}


def test_correlation_is_pearsons_over_what_has_both(attempt: RunAttempt) -> None:
    told = selectors.run_rewards(attempt.run)
    assert told["names"] == ["right", "short", "correct", "length"]
    matrix = told["correlation"]
    assert matrix[0][2] == 1.0 and all(matrix[a][b] == matrix[b][a] for a in range(4) for b in range(4))
    assert told["pairs"][0]["a"] == "right" and told["pairs"][0]["b"] == "correct"


def test_a_component_that_scored_nothing_is_refused_at_its_field(attempt: RunAttempt) -> None:
    with pytest.raises(DataError) as refused:
        selectors.run_rewards(attempt.run, weights={"preference": 1.0})
    assert refused.value.field == "weights" and "right, short" in refused.value.message


def test_who_may_ask_and_what_is_refused(
    attempt: RunAttempt, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient
) -> None:
    base = f"/api/v1/runs/{attempt.run_id}"
    assert api_bob.get(f"{base}/prompt/", {"step": 1, "group": 0}).json()["prompt"] == "1+1"
    assert api_bob.get(f"{base}/rewards/", {"weights": "right:1,short:0"}).json()["weights"] == {"right": 1.0, "short": 0.0}
    for path in ("prompt", "rewards"):
        assert api_charlie.get(f"{base}/{path}/").status_code == 404 and api_anonymous.get(f"{base}/{path}/").status_code == 401
    for path, query, field in (("prompt", {"step": 1}, "group"), ("prompt", {"step": 9, "group": 0}, "step"),
                               ("rewards", {"weights": "right"}, "weights"), ("rewards", {"weights": "right:nan"}, "weights"),
                               ("rewards", {"weights": "other:1"}, "weights")):  # fmt: skip
        refused = api_bob.get(f"{base}/{path}/", query)
        assert refused.status_code == 400 and field in refused.json()["errors"]


def test_reading_costs_the_same_however_many_steps(attempt: RunAttempt, django_assert_max_num_queries: Callable[..., Any]) -> None:
    for step in range(10, 30):
        store(attempt, step, [group("1+1", (1.0, 0.0))])
    with django_assert_max_num_queries(5):
        selectors.run_rewards(attempt.run)


def test_a_run_is_cloned_with_the_weights_that_were_tried(rf: Any, attempt: RunAttempt) -> None:
    config = attempt.run.config
    tried = _with_weights(rf.get("/", {"weights": "right:0.25,other:3,short:x"}), config)
    assert tried["reward"]["weights"] == {"right": 0.25, "short": 0.5}
    assert _with_weights(rf.get("/"), config) is config


def rows(rng: random.Random, num_groups: int) -> list[dict[str, Any]]:
    """Groups as a trainer may leave them: holes, unscored rollouts, components that only some were asked."""
    def completion(place: int) -> dict[str, Any]:
        names = rng.sample(["right", "short", "late"], rng.randint(0, 3))
        return {"text": f"t{place}", "num_tokens": rng.randint(1, 9), "correct": rng.choice([True, False, None]),
                "reward": rng.choice([None, rng.random(), 0.5]),
                "components": {name: rng.choice([None, 0.5, rng.random()]) for name in names} or rng.choice([{}, None])}  # fmt: skip

    return [{"prompt": f"p{place}", "completions": [completion(n) for n in range(rng.randint(0, 5))]} for place in range(num_groups)]


@pytest.mark.parametrize("seed", range(20))
def test_the_kept_numbers_weigh_as_the_stored_lines_do(seed: int) -> None:
    rng = random.Random(seed)
    groups = rows(rng, 12)
    weights = {name: rng.choice([0.0, 1.0, -0.5, 0.3]) for name in ("right", "short", "late", "unknown")}
    slow = reweigh(groups, weights)
    told, before, after = reweighed(scores_of(groups), weights)
    lines = slow.pop("groups")
    assert told == {key: value if value is None else pytest.approx(value, abs=1e-12) for key, value in slow.items()}
    for key, found in (("before", before), ("after", after)):
        for line, totals in zip(lines, found, strict=True):
            assert totals == [one[key] if one[key] is None else pytest.approx(one[key], abs=1e-12) for one in line["completions"]]
            assert best_of(totals) == best(line, key)


@pytest.mark.parametrize("seed", range(5))
def test_correlation_is_that_of_the_standard_library(seed: int) -> None:
    columns = columns_of([scores_of(rows(random.Random(seed), 20)), scores_of(rows(random.Random(seed + 100), 9))])
    for a, b in itertools.combinations_with_replacement(columns.values(), 2):
        both = [(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True) if x == x and y == y]
        if len(set(dict(both))) > 1 and len({y for _x, y in both}) > 1:
            assert correlation(a, b) == pytest.approx(statistics.correlation(*zip(*both, strict=True)), abs=1e-4)
        else:
            assert correlation(a, b) is None
    assert correlation(np.ones(4), np.arange(4.0)) is None and correlation(np.array([1.0, np.nan]), np.ones(2)) is None


def test_each_file_is_parsed_once_until_it_changes(attempt: RunAttempt, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    monkeypatch.setattr(rollouts, "_parsed", lambda lines, real=rollouts._parsed: parsed.append(1) or real(lines))
    first = selectors.run_rewards(attempt.run, weights={"right": 1.0})
    assert len(parsed) == 3
    selectors.run_rewards(attempt.run, weights={"short": 1.0})
    assert selectors.run_rewards(attempt.run, weights={"right": 1.0}) == first and len(parsed) == 3
    store(attempt, 2, [group("3+3", (0.0, 0.2), (1.0, 0.1))])
    assert selectors.run_rewards(attempt.run)["num_rollouts"] == first["num_rollouts"] - 1 and len(parsed) == 4


def test_what_there_was_no_time_for_is_read_by_the_next_question(attempt: RunAttempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "MAX_SECONDS", -1.0)
    assert selectors.run_rewards(attempt.run)["num_left"] == 3
    monkeypatch.undo()
    assert selectors.run_rewards(attempt.run)["num_left"] == 0


def test_what_is_kept_has_a_limit_and_the_oldest_goes_first() -> None:
    one = scores_of([group("1+1", (1.0, 0.1))])
    kept = Kept(max_bytes=2 * one.num_bytes)
    for key in ("a", "b", "a", "c"):
        kept(key, lambda: one)
    assert kept.num_bytes == 2 * one.num_bytes
    read: list[str] = []
    for key in ("a", "c", "b"):
        kept(key, lambda key=key: read.append(key) or one)  # type: ignore[misc]
    assert read == ["b"]
