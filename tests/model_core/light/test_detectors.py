"""A planted reward hack is flagged by its detector, a healthy run by none."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.detectors import DETECTORS, DetectorConfig, Watch, findings

NUM = 32
Line = Callable[[float], float]


def series(draw: random.Random, **lines: Line) -> dict[str, list[float | None]]:
    """A run of reinforcement learning that goes well, with noise, but for the metrics that `lines` plant; t goes from 0 to 1."""
    healthy: dict[str, Line] = {
        "reward/total": lambda t: 0.55 + 0.4 * t, "reward/solution_accuracy/mean": lambda t: 0.45 + 0.5 * t,
        "reward/logical_consistency/mean": lambda t: 0.6 + 0.35 * t, "reward/efficiency/mean": lambda t: 0.9 - 0.01 * t,
        "reward/repetition/mean": lambda _t: -0.02, "accuracy/rollouts": lambda t: 0.45 + 0.5 * t, "len/mean": lambda t: 30 + 12 * t,
        "entropy": lambda t: 0.3 - 0.2 * t, "reward/frac_zero_std_groups": lambda t: 0.1 + 0.5 * t, "eval/accuracy": lambda t: 0.6 + 0.35 * t,
    }  # fmt: skip
    healthy.update({name.replace("__", "/"): line for name, line in lines.items()})
    return {
        name: [line(step / (NUM - 1)) + draw.gauss(0, 0.004 * max(1.0, abs(line(0.0)))) for step in range(NUM)]
        for name, line in healthy.items()
    }  # fmt: skip


PLANTED: dict[str, dict[str, Line]] = {
    "dominance": {
        "reward__solution_accuracy__mean": lambda t: 0.6 - 0.3 * t, "reward__logical_consistency__mean": lambda t: 0.4 + 0.6 * t,
        "accuracy__rollouts": lambda t: 0.6 - 0.3 * t,
    },
    "length_drift": {"len__mean": lambda t: 30 + 60 * t, "accuracy__rollouts": lambda _t: 0.6},
    "proxy_gap": {"eval__accuracy": lambda t: 0.8 - 0.3 * t},
    "entropy_collapse": {"entropy": lambda t: 0.3 * (1 - t) ** 6, "accuracy__rollouts": lambda _t: 0.5},
    "no_signal": {"reward__frac_zero_std_groups": lambda t: 0.3 + 0.7 * min(1.0, 1.5 * t), "accuracy__rollouts": lambda _t: 0.3},
    "repetition_growth": {"reward__repetition__mean": lambda t: -0.02 - 0.5 * t},
}  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_is_accused_of_nothing(seed: int) -> None:
    assert findings(series(random.Random(seed))) == {}


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_planted_is_found_with_its_numbers(name: str, seed: int) -> None:
    found = findings(series(random.Random(seed), **PLANTED[name]))
    assert name in found and found[name].endswith(".") and any(sign.isdigit() for sign in found[name])


@pytest.mark.parametrize("name", DETECTORS)
def test_nothing_is_said_of_a_run_that_is_young_or_does_not_tell(name: str) -> None:
    planted = series(random.Random(1), **PLANTED[name])
    assert findings({metric: values[:15] for metric, values in planted.items()}) == {}
    assert findings({}) == {} and findings({metric: [None] * NUM for metric in planted}) == {}
    assert findings(planted, DetectorConfig(window=17)) == {}


@given(st.dictionaries(st.sampled_from(sorted(series(random.Random(0)))), st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=40)))
@settings(deadline=None, max_examples=100)
def test_any_numbers_are_judged(any_series: dict[str, list[float | None]]) -> None:
    assert set(findings(any_series)) <= set(DETECTORS)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_watch_says_each_finding_once_while_the_run_goes_on(name: str) -> None:
    planted, healthy = series(random.Random(2), **PLANTED[name]), series(random.Random(2))
    watch, quiet = Watch(), Watch()
    said = [sentence for step in range(NUM) for sentence in watch.add({metric: values[step] for metric, values in planted.items()}).values()]
    assert said and len(said) == len(set(said)) <= len(DETECTORS)
    assert [quiet.add({metric: values[step] for metric, values in healthy.items()}) for step in range(NUM)] == [{}] * NUM


def test_a_watch_keeps_little_however_long_the_run_is() -> None:
    watch = Watch(DetectorConfig(window=4))
    for step in range(500):
        watch.add({"reward/total": step / 500, "lr": None, "loss": float("nan")})
    assert sum(map(len, watch._first.values())) + sum(map(len, watch._last.values())) == 4 + 16


@pytest.mark.parametrize("cut", [1, 9, 20, 31])
@pytest.mark.parametrize("name", DETECTORS)
def test_one_that_goes_on_from_what_was_stored_says_what_the_whole_would(name: str, cut: int) -> None:
    planted = series(random.Random(3), **PLANTED[name])
    steps = [{metric: values[step] for metric, values in planted.items()} for step in range(NUM)]
    whole, first, second = Watch(), Watch(), Watch()
    expected = [whole.add(step) for step in steps]
    said = [first.add(step) for step in steps[:cut]]
    second.restore(first.stored())
    assert said + [second.add(step) for step in steps[cut:]] == expected


@pytest.mark.parametrize("name", ["other", "format"])
def test_a_reward_that_gets_a_component_rises_by_nobodys_doing(name: str) -> None:
    """Preference is added while held-out accuracy falls a little: with the very component it is another reward, not a hack."""
    draw, watch = random.Random(4), Watch()
    said: list[str] = []
    for step in range(40):
        late = step >= 20
        values = {"reward/total": 1.0 + 0.5 * late + draw.uniform(-0.01, 0.01), "reward/format/unscored": 0.0,
                  f"reward/{name}/unscored": 0.0 if late else None, "eval/accuracy": 0.9 - 0.1 * late}  # fmt: skip
        said += watch.add({metric: value for metric, value in values.items() if value is not None})
    assert bool(said) == (name == "format")
