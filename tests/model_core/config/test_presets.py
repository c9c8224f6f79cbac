"""A preset by its name is the preset written out."""

from __future__ import annotations

import pytest

from model_core.config import PRESETS, RunConfig, preset
from model_core.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_a_name_is_the_preset_written_out(name: str) -> None:
    by_name = RunConfig.parse({"phase": "cold_start", "model": name})
    assert by_name == RunConfig.parse({"phase": "cold_start", "model": preset(name).resolved()})
    assert by_name == RunConfig.parse(by_name.resolved())


def test_an_unknown_name_is_told_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"no model preset “huge”\. There are: tiny, small") as refused:
        RunConfig.parse({"phase": "cold_start", "model": "huge"})
    assert refused.value.field == "model"
