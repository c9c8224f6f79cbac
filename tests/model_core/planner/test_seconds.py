"""The planner's seconds: what is counted grows as the work does, rates are found again, and real steps take what was predicted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from model_core.__main__ import main
from model_core.config import PRESETS, ModelConfig, RunConfig, preset
from model_core.errors import ConfigError
from model_core.planner import Lengths, Rates, step_seconds
from model_core.planner.seconds import (
    WITHIN,
    Amounts,
    Batch,
    optimizer_amounts,
    pass_amounts,
    sampling_amounts,
    seconds_of,
)
from model_core.training.calibration import SAMPLINGS, UPDATES, fit

LENGTHS = Lengths(20, 30, 40)
TINY = preset("tiny").model_copy(update={"vocab_size": 60})
COUNTED = pass_amounts(TINY, Batch(1, 1, 2, 2, 1)) + optimizer_amounts(TINY, has_muon=True)
RATES = Rates(update=dict.fromkeys(COUNTED, 1e-9), sampling=dict.fromkeys(sampling_amounts(TINY, 8, 2, LENGTHS), 1e-9), num_threads=1, machine="a CPU",
              date="2026-11-30")  # fmt: skip


def of(phase: str, **values: Any) -> float:
    return step_seconds(RunConfig.parse({"phase": phase, **values}), TINY, LENGTHS, RATES).total


def test_passes_are_counted_as_they_are_cut() -> None:
    """64 tokens a row where all are alike, 60 for answers of one prompt, whose longest one decides how many fit."""
    assert Batch.of(10, Lengths(24, 40, 90), max_tokens=640) == Batch(1, 10, 63, 10 * 63, 400)
    assert Batch.of(10, Lengths(24, 40, 90), max_tokens=639).passes == 2
    assert Batch.of(10, Lengths(20, 40, 40), max_tokens=600, group=5) == Batch(1, 10, 59, 10 * 39 + 2 * 20, 400)
    assert Batch.of(10, Lengths(20, 40, 41), max_tokens=600, group=5).passes == 2
    assert Batch.of(3, LENGTHS, max_tokens=1).passes == 3


def test_more_work_takes_longer() -> None:
    assert of("cold_start", phase_config={"batch_size": 64}) > 1.5 * of("cold_start", phase_config={"batch_size": 32})
    plain = of("reinforcement")
    for more in ({"group_size": 32}, {"num_epochs": 2}, {"kl_coef": 0.1}, {"importance_cap": 2.0}, {"optimizer": "muon"}):
        assert of("reinforcement", phase_config=more) > plain, more
    assert of("reinforcement", phase_config={"kl_probe": 0}) < plain
    twice = sampling_amounts(TINY, 16, 2, Lengths(20, 30, 40))
    once = sampling_amounts(TINY, 8, 2, Lengths(20, 30, 40))
    assert twice["logits"] == 2 * once["logits"] and twice["blocks"] == once["blocks"], "rows decode together"


def test_rates_are_found_again_and_none_is_negative() -> None:
    known = {"products": 2e-11, "blocks": 3e-4, "idle": 0.0}
    cases = [Amounts(products=p, blocks=b, idle=i) for p, b, i in ((10**9, 4, 7), (10**10, 5, 1), (10**8, 90, 3), (10**9, 30, 9))]
    found = fit([("", case, seconds_of(case, known)) for case in cases])
    assert found == pytest.approx(known, abs=1e-12)
    assert all(rate >= 0 for rate in fit([("", case, 1.0) for case in cases]).values())


def test_no_shape_that_is_calibrated_on_is_a_presets() -> None:
    presets = [ModelConfig.parse(values) for values in PRESETS.values()]
    for case in [*UPDATES.values(), *SAMPLINGS.values()]:
        shape = ModelConfig.parse(case.shape)
        assert not any(shape.hidden_size == one.hidden_size for one in presets)


@pytest.mark.parametrize("update", [{}, {**RATES.update, "more": 1.0}, {**RATES.update, "moved": -1.0}])
def test_rates_of_other_kinds_of_work_are_refused(update: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="measure them with `calibrate`"):
        Rates.parse({**RATES.resolved(), "update": update})


@pytest.mark.parametrize("values", [
    {"phase": "distillation"}, {"phase": "cold_start", "parallel": {"num_processes": 2}},
    {"phase": "cold_start", "precision": {"gradient_checkpointing": True}},
    {"phase": "cold_start", "model": {"num_nextn_predict_layers": 1}},
])  # fmt: skip
def test_what_is_not_counted_is_refused(values: dict[str, Any]) -> None:
    config = RunConfig.parse(values)
    with pytest.raises(ConfigError, match=r"are not predicted: .*give tokens_per_second") as refused:
        step_seconds(config, config.model, LENGTHS, RATES)
    assert refused.value.field == "calibration"


def test_the_command_tells_step_throughput_and_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rates.json"
    file.write_text(json.dumps(RATES.resolved()))
    asked = ["plan", "tiny", "--vocab-size", "60", "--calibration", str(file)]
    lengths = ["--prompt-tokens", "20", "--answer-tokens", "30"]
    assert main([*asked, *lengths, "--tokens", "1e6", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    step = told["step"]
    assert step["tokens"] == 32 * 50 and step["seconds"] == pytest.approx(of("cold_start"))
    assert told["throughput"]["tokens_per_second"] == pytest.approx(step["tokens"] / step["seconds"])
    assert told["cost"]["seconds"] == pytest.approx(1e6 * step["seconds"] / step["tokens"])
    assert main([*asked, *lengths]) == 0
    assert "predicted by rates of a CPU, 1 thread, 2026-11-30" in capsys.readouterr().out
    too_long = ["--prompt-tokens", "250", "--answer-tokens", "9"]
    for wrong, field in (([], "prompt_tokens"), ([*lengths, "--mfu", "0.4"], "calibration"), (too_long, "answer_tokens")):
        assert main([*asked, *wrong]) == 2
        assert f"({field})" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_steps_take_the_predicted_seconds() -> None:
    """Rates are measured first, on other shapes: cold start and reinforcement of tiny, small and a cut medium are then within 30 %."""
    done = subprocess.run([sys.executable, "-m", "tests.model_core.planner.timed"], cwd=settings.BASE_DIR, text=True, timeout=580,
                          capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]
    ratios = {one["case"]: round(one["ratio"], 2) for one in told}
    assert len(ratios) == 6 and all(abs(ratio - 1) <= WITHIN for ratio in ratios.values()), ratios
