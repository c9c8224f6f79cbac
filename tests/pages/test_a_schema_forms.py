"""A form from a configuration: what it shows is what the configuration says, and errors stand at their field."""

from __future__ import annotations

from typing import Any

import pytest

from model_core.config import RunConfig, StrictModel
from model_core.phases import PHASES
from model_core.rewards import REWARDS
from training_app.forms import PhaseConfigForm
from training_app.models import PipelinePhase
from training_app.schema_forms import SchemaForm, label_of


class Lists(StrictModel):
    """Two lists of numbers."""

    streams: list[int] = [1, 2, 4]
    """At once."""
    rates: list[float] = [0.5]
    """Each."""


def form_of(data: dict[str, Any] | None, phase: str = "reinforcement") -> SchemaForm:
    return SchemaForm(
        data,
        model=RunConfig,
        values={"phase": phase},
        nested={"phase_config": PHASES.get(phase).Config},
        keys={"reward.weights": REWARDS.names()},
        without=frozenset({"phase", "budget"}),
    )


def as_sent(form: SchemaForm) -> dict[str, Any]:
    """What a browser sends when nothing was touched."""
    initial = {name: field.initial for name, field in form.fields.items()}
    return {name: "" if value is None else value for name, value in initial.items() if value is not False}


@pytest.mark.parametrize("phase", PHASES.names())
def test_an_untouched_form_is_the_default_configuration(phase: str) -> None:
    form = form_of(as_sent(form_of(None, phase)), phase)
    assert form.is_valid(), form.errors
    assert form.config() == RunConfig.parse({"phase": phase}).resolved()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("phase_config.steps", "0"),
        ("held_out.num_problems", "-1"),
        ("held_out.temperature", "9"),
        ("seed", "x"),
        ("parallel.expert", "0"),
    ],
)
def test_a_refused_value_is_said_at_its_field(name: str, value: str) -> None:
    form = form_of({**as_sent(form_of(None)), name: value})
    assert not form.is_valid()
    assert set(form.errors) == {name}


def test_a_rule_between_fields_is_said_at_one_of_them() -> None:
    form = form_of({**as_sent(form_of(None)), "model.num_experts_per_tok": "99"})
    assert not form.is_valid()
    assert set(form.errors) == {"model.num_experts_per_tok"}
    assert "lower the first or raise the second" in str(form.errors)


@pytest.mark.parametrize(
    ("phase", "changes", "field"),
    [
        ("reinforcement", {"phase_config.warmup_steps": "99"}, "phase_config.warmup_steps"),
        ("reinforcement", {"phase_config.reference_every": "5", "phase_config.kl_probe": "0"}, "phase_config.reference_every"),
        ("distillation", {"phase_config.num_attention_heads": "3"}, "phase_config.num_attention_heads"),
        ("distillation", {"phase_config.num_key_value_heads": "3"}, "phase_config.num_key_value_heads"),
        ("cold_start", {"model.rope_scaling.beta_slow": "99"}, "model.rope_scaling.beta_slow"),
        ("cold_start", {"model.topk_group": "3"}, "model.topk_group"),
        ("cold_start", {"parallel.tensor": "2", "parallel.zero_stage": "1"}, "parallel.tensor"),
    ],
)
def test_a_rule_of_any_group_is_said_at_the_field_that_it_names(
    phase: str, changes: dict[str, str], field: str
) -> None:
    form = form_of({**as_sent(form_of(None, phase)), **changes}, phase)
    assert not form.is_valid()
    assert set(form.errors) == {field}


def test_a_profile_names_every_component_that_the_form_has() -> None:
    form = PhaseConfigForm(phase=PipelinePhase(phase="reinforcement", config={}, num_processes=1))
    by_path = {group.path: group.presets for group, _fields in form.groups()}
    assert set(by_path["reward"]) == {"article", "r1_zero", "r1"} and "tiny" in by_path["model"]
    assert not any(presets for path, presets in by_path.items() if path not in {"model", "reward"})
    for values in by_path["reward"].values():
        assert {f"reward.weights.{name}" for name in values["weights"]} <= set(form.fields)
        assert set(values["weights"]) == set(REWARDS.names())


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("model.num_experts_per_tok", "99", "“Experts per token” is 99 but “Routed experts” is"),
        ("held_out.num_problems", "-5", "At least 1; you gave -5."),
        ("held_out.temperature", "9", "At most 2; you gave 9."),
        ("parallel.expert", "3", "“Processes”"),
        ("phase_config.warmup_steps", "99", "“Warmup steps” is 99 but “Steps” is"),
    ],
)
def test_errors_speak_the_words_of_the_form(name: str, value: str, sentence: str) -> None:
    form = form_of({**as_sent(form_of(None)), name: value})
    assert not form.is_valid()
    assert sentence in " ".join(text for texts in form.errors.values() for text in texts)


@pytest.mark.parametrize("phase", ["cold_start", "reinforcement"])
def test_a_default_warm_up_follows_the_steps(phase: str) -> None:
    form = form_of({**as_sent(form_of(None, phase)), "phase_config.steps": "3"}, phase)
    assert form.fields["phase_config.warmup_steps"].initial is None
    assert form.is_valid(), form.errors
    assert form.config()["phase_config"]["warmup_steps"] == 3


def test_an_empty_weight_takes_the_component_out() -> None:
    form = form_of({**as_sent(form_of(None)), "reward.weights.efficiency": ""})
    assert form.is_valid(), form.errors
    assert "efficiency" not in form.config()["reward"]["weights"]


def test_every_setting_has_help_and_a_group_that_holds_an_error_is_open() -> None:
    form = form_of({**as_sent(form_of(None)), "checkpoint.keep_last": "0"})
    form.is_valid()
    assert form.open_groups() == {"checkpoint"}
    assert all(form.fields[name].help_text for name in form.fields if not name.startswith("reward.weights."))


def test_labels_are_words() -> None:
    assert label_of("adamw_lr") == "AdamW learning rate"
    assert label_of("num_problems_during") == "Problems during"
    assert label_of("n_routed_experts") == "Routed experts" and label_of("num_experts_per_tok") == "Experts per token"
    assert "`" not in "".join(field.help_text for field in form_of(None).fields.values())
    assert "“Minibatches” × “Epochs”" in form_of(None).fields["phase_config.steps"].help_text


@pytest.mark.parametrize(
    ("streams", "rates", "read"), [
        ("1, 2,8", "1e-3 2", {"streams": [1, 2, 8], "rates": [0.001, 2.0]}), ("[3, 5]", "", {"streams": [3, 5], "rates": [0.5]}),
        ("", "1", {"streams": [1, 2, 4], "rates": [1.0]}),
    ],
)  # fmt: skip
def test_numbers_are_written_with_commas(streams: str, rates: str, read: dict[str, Any]) -> None:
    form = SchemaForm({"streams": streams, "rates": rates}, model=Lists)
    assert form.is_valid(), form.errors
    assert form.config() == read
    assert 'value="1, 2, 4"' in str(SchemaForm(model=Lists)["streams"])


def test_what_is_no_number_among_numbers_is_said_at_its_field() -> None:
    form = SchemaForm({"streams": "1, two", "rates": "1"}, model=Lists)
    assert not form.is_valid()
    assert form.errors == {"streams": ["“two” is no whole number. Write them with commas between, such as 1, 2, 4."]}
