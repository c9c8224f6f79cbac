"""Events in one file: numbers without a gap over any number of writers, content as it was told, names that are explained."""

from __future__ import annotations

import json
import math
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_core.events import KINDS, METRICS, EventWriter
from model_core.rewards import REWARDS

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([math.nan, math.inf, -math.inf]) | TEXT
PAYLOADS = st.dictionaries(st.sampled_from(["message", "step", "values"]), st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6), max_size=3)  # fmt: skip
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def told(path: Path) -> list[dict[str, Any]]:
    """The lines by the one end that a line of JSON has; other signs that Python takes for ends are content."""
    data = path.read_bytes()
    assert data.endswith(b"\n") or not data
    return [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in data.split(b"\n")[:-1]]


def named(value: Any) -> Any:
    """The same with numbers that are not finite by their names."""
    if isinstance(value, dict):
        return {key: named(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [named(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@QUICK
@given(sessions=st.lists(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), PAYLOADS), max_size=4), max_size=4), cut=st.binary(max_size=8))
def test_writers_go_on_where_the_last_one_stopped(
    tmp_path: Path, sessions: list[list[tuple[str, dict[str, Any]]]], cut: bytes
) -> None:
    path = tmp_path / "events.jsonl"
    path.unlink(missing_ok=True)
    numbers = []
    for session in sessions:
        with closing(EventWriter(path)) as writer:
            numbers += [writer.emit(kind, **payload) for kind, payload in session]
        with path.open("ab") as file:
            file.write(cut.replace(b"\n", b""))
    EventWriter(path).close()
    asked = [item for session in sessions for item in session]
    assert numbers == list(range(1, len(asked) + 1))
    assert [(line["seq"], line["kind"], line["payload"]) for line in told(path)] == [
        (number, kind, named(payload)) for number, (kind, payload) in zip(numbers, asked, strict=True)]


def test_a_line_is_there_when_emit_returns_and_says_when(tmp_path: Path) -> None:
    began = time.time()
    with closing(EventWriter(str(tmp_path / "e"))) as writer:
        writer.emit("stage", stage="loading", step=0)
        (line,) = told(tmp_path / "e")
        assert sorted(line) == ["kind", "payload", "seq", "time"] and began <= line["time"] <= time.time()
        writer.emit("warning", message="two\nlines \u2028 and more", where=(1, 2))
    assert told(tmp_path / "e")[1]["payload"] == {"message": "two\nlines \u2028 and more", "where": [1, 2]}


def test_a_kind_that_is_not_explained_is_our_mistake(tmp_path: Path) -> None:
    with closing(EventWriter(tmp_path / "e")) as writer:
        with pytest.raises(AssertionError, match="magic"):
            writer.emit("magic")
        assert writer.emit("warning", message="a") == 1


def test_kinds_and_metrics_explain_themselves() -> None:
    assert all(keys.strip() for keys in KINDS.values()) and all(meaning for _unit, meaning in METRICS.values())
    assert not {f"reward/{name}" for name in REWARDS.names()} & set(METRICS), "a component's metrics are a family of their own"
