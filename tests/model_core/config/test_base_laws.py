"""The base of all configuration: frozen, strict as JSON, each mistake a sentence at its field, every default written out."""

from __future__ import annotations

import json
from typing import Any, Self

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from model_core import config
from model_core.config import ParallelConfig, PrepareConfig, RewardConfig, RunConfig, RunPaths, StrictModel
from model_core.errors import ConfigError, UnknownName

CLASSES = [cls for cls in vars(config).values() if isinstance(cls, type) and issubclass(cls, StrictModel) and cls is not StrictModel]


class Inner(StrictModel):
    """Something nested."""

    share: float = Field(0.5, ge=0, le=1)
    """A share."""


class Outer(StrictModel):
    """Something with a part and a list of parts."""

    count: int = Field(1, ge=1)
    """How many."""
    name: str = "x"
    """What it is called."""
    inner: Inner = Inner()
    """A part."""
    many: list[Inner] = Field(default_factory=list)
    """Parts."""


@pytest.mark.parametrize(("values", "field", "words"), [
    ({"count": 0}, "count", "greater than or equal to 1, but it is 0"), ({"count": "2"}, "count", "valid integer, but it is '2'"),
    ({"count": True}, "count", "valid integer"), ({"count": 1.0}, "count", "valid integer"), ({"name": 3}, "name", "valid string"),
    ({"inner": {"share": float("nan")}}, "inner.share", "finite number"), ({"inner": {"share": float("inf")}}, "inner.share", "finite number"),
    ({"many": [{}, {"share": 2}]}, "many.1.share", "less than or equal to 1, but it is 2"), ({"many": {}}, "many", "valid list"),
    ({"magic": 1}, "magic", "no such setting. Known here: count, inner, many, name."),
    ({"inner": {"magic": 1}}, "inner.magic", "inner.magic: there is no such setting."), ({"inner": None}, "inner", "valid dictionary"),
])
def test_a_mistake_is_a_sentence_at_its_field(values: dict[str, Any], field: str, words: str) -> None:
    for prefix in ("", "at.this"):
        with pytest.raises(ConfigError) as refused:
            Outer.parse(values, prefix=prefix)
        assert refused.value.field == (f"at.this.{field}" if prefix else field)
        assert words in refused.value.message and refused.value.message.startswith(f"{prefix}{'.' if prefix else ''}")


def test_every_mistake_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        Outer.parse({"count": 0, "name": 3, "inner": {"share": 7}, "magic": 1})
    assert refused.value.field == "count"
    assert all(f"{field}: " in refused.value.message for field in ("count", "name", "inner.share", "magic"))


@settings(deadline=None)
@given(st.integers(1, 9), st.text(max_size=5), st.floats(0, 1) | st.integers(0, 1), st.lists(st.floats(0, 1), max_size=3))
def test_what_is_written_out_is_json_and_parses_to_itself(count: int, name: str, share: float, many: list[float]) -> None:
    made = Outer.parse({"count": count, "name": name, "inner": {"share": share}, "many": [{"share": one} for one in many]})
    stored = made.resolved()
    assert Outer.parse(json.loads(json.dumps(stored))) == made
    assert set(stored) == set(Outer.model_fields) and made.inner.share == share


def test_what_is_parsed_stays_and_the_fields_explain_themselves() -> None:
    made = Outer.parse({})
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        made.count = 3  # type: ignore[misc]
    assert {name: field.description for name, field in Outer.model_fields.items()} == {
        "count": "How many.", "name": "What it is called.", "inner": "A part.", "many": "Parts."}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_configuration_is_strict_and_explained(cls: type[StrictModel]) -> None:
    assert cls.__doc__ and cls.model_config.get("extra") == "forbid" and cls.model_config.get("frozen") and cls.model_config.get("strict")
    assert all(field.description for field in cls.model_fields.values())


@pytest.mark.parametrize(("section", "field", "value"), [
    ("", "seed", -1), ("", "seed", 2**31), ("", "phase", None), ("parallel", "num_processes", 0), ("parallel", "expert", 0),
    ("parallel", "pipeline", 0), ("parallel", "tensor", 0), ("parallel", "zero_stage", 4), ("parallel", "offload", "disk"),
    ("precision", "dtype", "float8"), ("precision", "gradient_checkpointing", "yes"), ("budget", "device_seconds", 0),
    ("budget", "wall_seconds", -1.0), ("held_out", "num_problems", 0), ("held_out", "num_problems_during", -1), ("held_out", "every_steps", -1),
    ("held_out", "temperature", 2.1), ("held_out", "max_new_tokens", 0), ("checkpoint", "every_steps", -1), ("checkpoint", "every_seconds", -1),
    ("checkpoint", "keep_last", 0), ("checkpoint", "keep_best", -1), ("checkpoint", "metric", "loss"), ("tokenizer", "kind", "chars"),
    ("tokenizer", "vocab_size", 299),
])
def test_a_runs_value_out_of_range_is_refused_at_its_field(section: str, field: str, value: Any) -> None:
    values = {section: {field: value}} if section else {field: value}
    with pytest.raises(ConfigError) as refused:
        RunConfig.parse({"phase": "cold_start", **values}, prefix="config")
    assert refused.value.field == ".".join(["config", *([section] if section else []), field])


@pytest.mark.parametrize(("values", "field"), [
    ({"reward": {"weights": {"magic": 1}}}, "reward.weights.magic"), ({"reward": {"settings": {"magic": {}}}}, "reward.settings.magic"),
    ({"phase": "magic"}, "phase"),
])
def test_an_unknown_name_in_a_nested_run_has_the_whole_way_to_it(values: dict[str, Any], field: str) -> None:
    with pytest.raises(UnknownName, match="There are: ") as refused:
        RunConfig.parse({"phase": "cold_start", **values}, prefix="config")
    assert refused.value.field == f"config.{field}"


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 12))
def test_processes_come_out_even_or_are_refused(expert: int, pipeline: int, tensor: int, num_processes: int) -> None:
    values = {"num_processes": num_processes, "expert": expert, "pipeline": pipeline, "tensor": tensor}
    data, rest = divmod(num_processes, pipeline * tensor)
    if rest == 0 and data % expert == 0:
        assert ParallelConfig.parse(values).data == data
    else:
        with pytest.raises(ConfigError, match="must divide"):
            ParallelConfig.parse(values)


def test_a_preparation_comes_back_with_the_settings_of_each_part_filled_in() -> None:
    asked = PrepareConfig.parse({"source": "csv", "filters": [{"name": "length", "config": {"max_prompt_chars": 9}}, {"name": "exact_duplicates"}]})
    assert asked.source_config == {"max_rows": 5_000_000} and asked.filters[0].config["min_prompt_chars"] == 1
    assert PrepareConfig.parse(json.loads(json.dumps(asked.resolved()))) == asked


@pytest.mark.parametrize(("values", "field"), [
    ({}, "source"), ({"source": "csv", "held_out_fraction": 1}, "held_out_fraction"), ({"source": "csv", "seed": -1}, "seed"),
    ({"source": "csv", "source_config": {"max_rows": 0}}, "source_config.max_rows"), ({"source": "csv", "filters": [{}]}, "filters.0.name"),
    ({"source": "generated", "source_config": {"num_train": 0}}, "source_config.num_train"), ({"source": "csv", "mapping": {"q": "x"}}, "mapping.q"),
])
def test_a_preparation_refuses_at_its_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        PrepareConfig.parse(values)
    assert refused.value.field == field


def test_a_reward_alone_knows_its_place_and_paths_know_theirs() -> None:
    with pytest.raises(ConfigError) as refused:
        RewardConfig.parse({"settings": {"efficiency": {"limit_tokens": 1}}})
    assert refused.value.field == "reward.settings.efficiency.limit_tokens"
    assert RunPaths.parse({}).resolved() == dict.fromkeys(
        ("dataset", "start_from", "rollouts_from", "student", "resume_from", "benchmark"))


class Rope(StrictModel):
    """Holds a rule between its fields."""

    low: int = 1
    """Lower end."""
    high: int = 9
    """Upper end."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low} but high is {self.high}")
        return self


class Ship(StrictModel):
    """Has such a model inside, which may lack."""

    rope: Rope = Rope()
    """Its rope."""
    spare: Rope | None = None
    """Another."""


@pytest.mark.parametrize(("values", "fields"), [
    ({"rope": {"low": 20}}, ["rope.low"]), ({"rope": {"high": 0}}, ["rope.high"]), ({"rope": {"high": 0, "low": 1}}, ["rope.high"]),
    ({"rope": {"low": 5, "high": 4}, "spare": {"high": -1}}, ["rope.low", "spare.high"]),
    ({"rope": {"low": "5"}, "spare": {"low": 10}}, ["rope.low", "spare.low"]),
])  # fmt: skip
def test_a_rule_between_fields_is_told_at_the_one_that_was_changed(values: dict[str, Any], fields: list[str]) -> None:
    for prefix in ("", "at"):
        with pytest.raises(ConfigError) as refused:
            Ship.parse(values, prefix=prefix)
        wanted = [f"{prefix}.{field}" if prefix else field for field in fields]
        assert [field for field, _sentence in refused.value.parts] == wanted and refused.value.field == wanted[0]
        assert all(sentence in refused.value.message and "{" not in sentence for _field, sentence in refused.value.parts)
