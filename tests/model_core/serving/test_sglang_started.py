"""SGLang as we start it: its arguments and environment by device, where it is installed, and its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.serving.engines import ENGINES
from model_core.serving.engines.sglang import parse_metrics, python_of
from model_core.serving.protocol import METRICS
from tests.model_core.serving.engine_commands import command_of, option, served_name_of

PROMETHEUS = """
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="tiny"} 3.0
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="tiny"} 0.25
# TYPE sglang:time_to_first_token_seconds histogram
sglang:time_to_first_token_seconds_sum{model_name="tiny"} 6.0
sglang:time_to_first_token_seconds_bucket{le="1",model_name="tiny"} 2.0
sglang:time_to_first_token_seconds_bucket{le="+Inf",model_name="tiny"} 4.0
sglang:time_to_first_token_seconds_count{model_name="tiny"} 4.0
# TYPE sglang:inter_token_latency_seconds histogram
sglang:inter_token_latency_seconds_sum{model_name="tiny"} 0.0
sglang:inter_token_latency_seconds_count{model_name="tiny"} 0.0
# TYPE sglang:something_else gauge
sglang:something_else 1.0
"""


def test_sglang_on_a_cpu_is_told_what_a_cpu_needs() -> None:
    command = command_of("sglang", device="cpu", tensor_parallel_size=2)
    assert option(command, "--device") == "cpu" and option(command, "--attention-backend") == "torch_native"
    assert option(command, "--dtype") == "float32" and option(command, "--max-total-tokens") == "4096"
    assert option(command, "--tp-size") == "2" and command.env["SGLANG_CPU_OMP_THREADS_BIND"] == "0|1"
    parts, reasoning = map(Path, command.env["PYTHONPATH"].split(":"))
    assert (parts / "sitecustomize.py").is_file() and (reasoning / "r1_sglang_reasoning.py").is_file()


def test_sglang_on_a_gpu_is_left_as_it_is() -> None:
    command = command_of("sglang", device="cuda")
    assert {"--device", "--attention-backend", "--max-total-tokens"}.isdisjoint(command.argv)
    assert option(command, "--dtype") == "auto" and set(command.env) == {"R1_ENGINE_KEY", "PYTHONPATH"}
    assert "sitecustomize.py" not in {path.name for path in Path(command.env["PYTHONPATH"]).iterdir()}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_settings_of_sglang_reach_its_arguments(device: str) -> None:
    config: dict[str, Any] = {"dtype": "bfloat16", "context_length": 512, "max_total_tokens": 2048, "max_running_requests": 4}
    command = command_of("sglang", device=device, served_name="mine", **config)
    for name, value in config.items():
        assert option(command, f"--{name.replace('_', '-')}") == str(value)
    assert option(command, "--model-path") == "/models/one" and served_name_of(command) == "mine"
    assert option(command, "--reasoning-parser") == "r1" and "--enable-metrics" in command.argv
    assert Path(command.argv[1]).name == "launch_sglang.py" and Path(command.argv[1]).is_file()
    assert "--context-length" not in command_of("sglang", device=device).argv


def test_sglang_is_installed_where_its_python_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("R1_SGLANG_PYTHON", raising=False)
    monkeypatch.setenv("R1_HOME", str(tmp_path))
    engine, python = ENGINES.get("sglang")(), tmp_path / "sglang" / "bin" / "python"
    assert str(python) in engine.installed() and "./r1 engine install sglang" in engine.installed()
    python.parent.mkdir(parents=True)
    python.touch()
    assert engine.installed() is None and command_of("sglang").argv[0] == str(python) == str(python_of(tmp_path))
    monkeypatch.setenv("R1_SGLANG_PYTHON", "/elsewhere/python")
    assert command_of("sglang").argv[0] == "/elsewhere/python" and "/elsewhere/python" in engine.installed()
    assert all(ENGINES.get(name)().installed() is None for name in ("builtin", "fake"))


def test_sglangs_numbers_get_the_common_names() -> None:
    """A mean of nothing is left out, and what has no common name too."""
    assert parse_metrics(PROMETHEUS) == {"running": 3.0, "kv_use": 0.25, "ttft_seconds": 1.5}
    assert parse_metrics("") == {} and parse_metrics(PROMETHEUS).keys() <= METRICS.keys()


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), min_size=1, max_size=4))
@settings(deadline=None)
def test_a_mean_is_over_all_label_sets(sums: list[tuple[float, int]]) -> None:
    name = "sglang:time_to_first_token_seconds"
    text = f"# TYPE {name} histogram\n" + "".join(
        f'{name}_sum{{tp="{rank}"}} {total!r}\n{name}_count{{tp="{rank}"}} {count}\n' for rank, (total, count) in enumerate(sums))
    expected = sum(total for total, _ in sums) / sum(count for _, count in sums)
    assert parse_metrics(text) == {"ttft_seconds": pytest.approx(expected)}
