"""A configuration says at its field what cannot be; what it accepts comes back the same when it is parsed again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model_core.config import MappingConfig, ModelConfig, PrepareConfig, RewardConfig, RunConfig
from model_core.errors import ConfigError, ModelCoreError, UnknownName
from model_core.phases import PHASES
from model_core.rewards._types import Sample
from model_core.rundir import RunDir
from model_core.scoring import Rubric


def nested(field: str, value: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"phase": "cold_start"}
    at, *rest = out, *field.split(".")
    for key in rest[:-1]:
        at = at.setdefault(key, {})
    at[rest[-1]] = value
    return out


@pytest.mark.parametrize(("field", "value"), [
    ("seed", True), ("seed", "3"), ("seed", 3.0), ("phase_config.muon_lr", float("nan")), ("phase_config.muon_lr", "0.1"),
    ("budget.device_seconds", float("inf")), ("budget.device_seconds", True), ("model.norm_topk_prob", 1),
    ("reward.weights.efficiency", float("inf")), ("reward.weights", {}), ("checkpoint.metric", "qualty"),
    ("phase", "magic"), ("reward.weights.magic", 1.0), ("reward.settings.magic", {}),
    ("reward.settings.efficiency.target_tokens", 0),
])
def test_a_wrong_value_is_refused_at_its_field(field: str, value: Any) -> None:
    with pytest.raises(ModelCoreError) as refused:
        RunConfig.parse(nested(field, value))
    assert refused.value.field == field


@pytest.mark.parametrize(("values", "words"), [
    ({"model": {"n_group": 4, "topk_group": 1, "num_experts_per_tok": 3}}, "hold only 2 experts"),
    ({"phase_config": {"steps": 5, "warmup_steps": 6}}, "never reach its peak"),
])
def test_a_rule_between_fields_is_said(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RunConfig.parse({"phase": "cold_start", **values})


def test_integers_are_floats_and_a_short_phase_warms_up_in_time() -> None:
    config = RunConfig.parse({"phase": "cold_start", "phase_config": {"steps": 5, "clip_norm": 2}})
    assert config.phase_config["clip_norm"] == 2.0 and config.phase_config["warmup_steps"] == 5


@pytest.mark.parametrize("phase", PHASES.names())
def test_what_is_stored_parses_to_itself(phase: str) -> None:
    stored = RunConfig.parse({"phase": phase}).resolved()
    assert RunConfig.parse(json.loads(json.dumps(stored))).resolved() == stored
    assert stored["reward"]["settings"]["efficiency"] == {"target_tokens": 32, "limit_tokens": 96}


def test_settings_reach_the_reward() -> None:
    sample = Sample("1+1=", "<think>1+1=2</think>2", "2", "", 50, "stop")
    config = RewardConfig.parse({"weights": {"efficiency": 1.0}, "settings": {"efficiency": {"target_tokens": 64}}})
    totals = [Rubric(c).score([sample])[0].total for c in (config, RewardConfig.parse({"weights": {"efficiency": 1.0}}))]
    assert totals == [1.0, pytest.approx(1 - 18 / 64)]


def test_settings_of_a_component_without_a_weight_are_left_out() -> None:
    config = RewardConfig.parse({"weights": {"format": 1.0}, "settings": {"efficiency": {"target_tokens": 64}}})
    assert config.settings == {"format": {}}


@pytest.mark.parametrize(("pattern", "words"), [("(", "no regular expression"), ("abc", "no group")])
def test_a_broken_answer_pattern_is_said(pattern: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        PrepareConfig.parse({"source": "jsonl", "mapping": {"answer_pattern": pattern}})
    assert refused.value.field == "mapping.answer_pattern"
    assert MappingConfig.parse({"answer_pattern": ""}).answer_pattern == ""


@pytest.mark.parametrize(("values", "field"), [
    ({"source": "magic"}, "source"), ({"source": "jsonl", "filters": [{"name": "magic"}]}, "filters.0.name"),
    ({"source": "generated", "source_config": {"task": "magic"}}, "source_config.task"),
])
def test_an_unknown_name_has_its_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(UnknownName) as refused:
        PrepareConfig.parse(values)
    assert refused.value.field == field


@pytest.mark.parametrize("content", ["[]", "3", '{"run": []}', '{"run": {"phase": "cold_start"}, "paths": 1}'])
def test_a_config_file_that_is_no_object_is_said(tmp_path: Any, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="must be an object"):
        RunDir(tmp_path).load()


def test_published_shapes_stay_possible() -> None:
    assert ModelConfig(n_routed_experts=256, n_group=8, topk_group=4, num_experts_per_tok=8).n_group == 8
