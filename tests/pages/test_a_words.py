"""Numbers, times and states are written one way."""

from __future__ import annotations

import pytest

from r1platform.templatetags import r1
from serving_app import states as serving
from training_app import states as training


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (192, "3 m 12 s"),
        (0.042, "42 ms"),
        (5.25, "5.2 s"),
        (59, "59 s"),
        (93784, "1 d 2 h"),
        (3661, "1 h 1 m"),
        (None, "–"),
        ("", "–"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert r1.duration(seconds).replace(r1.THIN, " ") == text


@pytest.mark.parametrize(
    ("days", "text"), [(59, "in 59 d"), (90, "in 90 d"), (119, "in 119 d"), (120, "in 4 months"), (-90, "90 d ago")]
)
def test_days_are_counted_below_four_months(days: int, text: str) -> None:
    """90 days are not "2 months"."""
    assert r1.relative(-days * 86_400).replace(r1.THIN, " ") == text


def test_numbers_carry_thin_spaces_units_and_a_true_minus() -> None:
    assert r1.grouped(7473) == "7\u202f473"
    assert r1.percent(0.961) == "96.1\u202f%"
    assert r1.as_bytes(3 << 20) == "3.0\u202fMiB"
    assert r1.number(-1.72) == "−1.72"
    assert (r1.fixed(0.9899), r1.fixed(-0.5, 2), r1.fixed(None)) == ("0.990", "−0.50", "–")
    assert r1.number(7140.4) == "7140"
    assert r1.number(float("1e-05")) == "1e−5"


@pytest.mark.parametrize("unknown", [None, "", "text", True])
def test_what_is_not_known_is_a_dash(unknown: object) -> None:
    assert {r1.percent(unknown), r1.grouped(unknown), r1.number(unknown), r1.as_bytes(unknown)} == {"–"}


def test_every_state_of_every_entity_has_a_meaning() -> None:
    enums = [training.VersionState, training.LaunchState, training.RunState, training.AttemptState,
             serving.DeploymentState,
             serving.ReplicaState, serving.GenerationState]  # fmt: skip
    missing = {str(value) for enum in enums for value in enum.values} - set(r1.TONES)
    assert not missing


def test_a_badge_escapes_its_words() -> None:
    assert "<script>" not in r1.state_badge("running", "<script>")
