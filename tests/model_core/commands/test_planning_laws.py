"""`plan`: how its numbers follow from what is asked, that table and JSON say the same, and which files it understands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_core.config import RunConfig, RunPaths, preset
from model_core.planner import parameters
from model_core.rundir import RunDir
from tests.model_core.commands.conftest import Say

ROOT = Path(__file__).parents[3]


def planned(say: Say, *arguments: object) -> dict[str, Any]:
    said = say("plan", *arguments, "--json")
    assert said.status == 0 and said.err == "", said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_parameters_are_those_of_the_shape_and_its_vocabulary(say: Say) -> None:
    base, more = (planned(say, "small", "--vocab-size", size)["parameters"] for size in (100, 300))
    shape = preset("small").model_copy(update={"vocab_size": 300})
    assert more["total"] == parameters(shape).total and more["total"] > more["active"] > base["active"]
    assert more["total"] - base["total"] == 200 * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)


def test_cost_is_linear_in_tokens_and_price_and_falls_with_speed(say: Say) -> None:
    def cost(tokens: float, speed: float, price: float) -> dict[str, Any]:
        found: dict[str, Any] = planned(say, "small", "--tokens", tokens, "--tokens-per-second", speed, "--price", price)["cost"]
        return found

    one = cost(1e9, 1e5, 2)
    assert one["device_hours"] == pytest.approx(1e9 / 1e5 / 3600) and one["price"] == pytest.approx(2 * one["device_hours"])
    for other in (cost(3e9, 3e5, 2), cost(2e9, 1e5, 1)):
        assert other["price"] == pytest.approx(one["price"])
    assert cost(1e9, 2e5, 2)["device_hours"] == pytest.approx(one["device_hours"] / 2)


def test_throughput_is_linear_in_the_share_of_the_peak(say: Say) -> None:
    low, high = (planned(say, "small", "--devices", "1xH100", "--tokens", "1e9", "--mfu", mfu) for mfu in (0.2, 0.4))
    assert high["cost"]["device_hours"] == pytest.approx(low["cost"]["device_hours"] / 2)
    assert low["throughput"]["tokens_per_second"] * low["flops_per_token"]["training"] == pytest.approx(0.2 * 989.4e12)


def test_an_engines_cache_grows_with_rows_and_length(say: Say) -> None:
    for rows, sequence in ((1, 64), (5, 64), (1, 128)):
        found = planned(say, "small", "--rows", rows, "--sequence", sequence)
        assert found["engine"]["cache"] == rows * sequence * found["cache_bytes_per_token"]
        assert found["engine"]["total"] == found["engine"]["cache"] + found["engine"]["weights"]


def test_recomputing_trades_memory_for_work(say: Say) -> None:
    plain, again = (planned(say, "small", "--micro-tokens", 4096, *options) for options in ([], ["--checkpointing"]))
    assert again["memory"]["total"] < plain["memory"]["total"]
    work = [one["flops_per_token"] for one in (plain, again)]
    assert work[0]["recomputed"] == 0 < work[1]["recomputed"] < work[1]["forward"], "all but the head"
    assert work[0]["training"] == work[1]["training"], "what a share of the peak is reckoned with"
    assert again["precision"] == {**plain["precision"], "gradient_checkpointing": True}


def test_half_precision_is_taken_on_devices_that_are_known_and_when_it_is_asked_for(say: Say) -> None:
    def dtype(*options: str) -> Any:
        return planned(say, "tiny", *options)["precision"]["dtype"]

    assert (dtype(), dtype("--devices", "2xCPU:16GB"), dtype("--devices", "1xH200")) == ("float32", "float32", "bfloat16")
    assert dtype("--dtype", "bfloat16") == "bfloat16" and dtype("--devices", "1xH200", "--dtype", "float32") == "float32"


def test_the_smallest_layout_fits_and_the_one_before_does_not(say: Say) -> None:
    few, many = (planned(say, "small", "--devices", devices)["smallest"] for devices in ("1xCPU:64GB", "8xCPU:64GB"))
    assert few["layout"]["num_processes"] == many["layout"]["num_processes"] == 1, "more devices need not be taken"
    tight = planned(say, "small", "--devices", "1xCPU:0.05GB", "--micro-tokens", 64)["smallest"]
    assert tight["layout"] is None or tight["layout"]["num_processes"] > 1
    assert tight["smaller_do_not_fit"] and all("×" in reason for reason in tight["smaller_do_not_fit"])


def test_the_table_says_what_the_json_says(say: Say) -> None:
    options = ["small", "--devices", "1xH100", "--tokens", "1e9", "--mfu", "0.4", "--price", "2"]
    found, table = planned(say, *options), say("plan", *options)
    rows = {" ".join(line.split()) for line in table.out.splitlines()}
    parts = {name: value for name, value in found["parameters"].items() if name not in {"total", "active"}}
    assert table.status == 0 and {f"{name} {value:,}" for name, value in parts.items() if value} <= rows
    assert f"Parameters {found['parameters']['total']:,}" in rows and f"training {found['flops_per_token']['training']:.3e}" in rows
    assert any(row.startswith(f"Throughput {found['throughput']['tokens_per_second']:,.0f} tokens/s") for row in rows)
    assert f"Price {found['cost']['price']:,.2f}" in rows and any(row.startswith("Smallest layout that fits: 1 × H100") for row in rows)


def test_one_run_is_one_plan_however_it_is_given(tmp_path: Path, say: Say) -> None:
    """Its configuration alone, that of a run directory, the directory."""
    run = RunConfig.parse({"phase": "cold_start", "model": "small", "phase_config": {"max_micro_tokens": 512}})
    rundir, file = RunDir.create(tmp_path / "run", run=run, paths=RunPaths()), tmp_path / "run.json"
    file.write_text(json.dumps(run.resolved()))
    plans = [planned(say, where) for where in (file, rundir.path, rundir.config)]
    assert plans[0] == plans[1] == plans[2]
    assert plans[0]["work"]["micro_tokens"] == 512 < plans[0]["work"]["sequence_tokens"], "a run says itself how it cuts its batches"


@pytest.mark.parametrize(("make", "words"), [
    (lambda path: path.write_bytes(b"\xff\xfe"), "is not valid JSON"), (lambda path: path.write_text("3"), "holds a int"),
    (lambda path: path.mkdir(), "has no config.json"),
])  # fmt: skip
def test_what_holds_no_run_is_named(make: Any, words: str, tmp_path: Path, say: Say) -> None:
    make(tmp_path / "run.json")
    said = say("plan", tmp_path / "run.json")
    assert said.status == 2 and said.out == "" and words in said.err


def test_a_start_that_is_no_checkpoint_is_named(tmp_path: Path, say: Say) -> None:
    rundir = RunDir.create(tmp_path / "run", run=RunConfig.parse({"phase": "reinforcement"}), paths=RunPaths(start_from="/gone"))
    said = say("plan", rundir.path)
    assert said.status == 2 and said.err.startswith("ConfigError (config): /gone is no checkpoint")


@pytest.mark.parametrize("option", ["--tokens", "--tokens-per-second", "--mfu", "--price"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
def test_a_plan_is_made_with_numbers(option: str, value: str, say: Say) -> None:
    """NaN compares with nothing, and is no JSON."""
    asked = {"--tokens": "1e9", "--tokens-per-second": "1e5", option: value}
    said = say("plan", "tiny", "--devices", "1xH100", *(f"{name}={number}" for name, number in asked.items()), "--json")
    assert said.status == 2 and said.out == "" and said.err.startswith(f"ConfigError ({option[2:].replace('-', '_')}): ")


@pytest.mark.parametrize(("options", "field"), [
    (["--tokens", "1e15", "--tokens-per-second", "1e-320"], "tokens"), (["--tokens", "1e15", "--tokens-per-second", "1", "--price", "1e308"], "price"),
    (["--rows", "9" * 400], "rows"), (["--micro-tokens", 2**53 + 1], "micro_tokens"), (["--devices", f"1xCPU:{'9' * 400}GB"], "devices"),
    (["--devices", f"{'9' * 20}xH200"], "devices"),
])  # fmt: skip
def test_what_is_beyond_all_numbers_is_said_at_its_option(options: list[Any], field: str, say: Say) -> None:
    said = say("plan", "tiny", *options, "--json")
    assert said.status == 2 and said.out == "" and said.err.startswith(f"ConfigError ({field}): ")


@pytest.mark.parametrize("data", [b'{"run": ' + b"9" * 5000 + b"}", b"[" * 100_000])
def test_a_file_that_json_does_not_bear_is_named(data: bytes, tmp_path: Path, say: Say) -> None:
    (tmp_path / "run.json").write_bytes(data)
    said = say("plan", tmp_path / "run.json")
    assert said.status == 2 and said.err.startswith("ConfigError (config): ") and "is not valid JSON" in said.err


def test_a_name_that_no_file_can_have_is_no_file(say: Say) -> None:
    said = say("plan", "a" * 5000)
    assert said.status == 2 and said.err.startswith("ConfigError (config): ")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_who_has_seen_enough_is_no_error(options: list[str]) -> None:
    """As `head` does; nobody reads from the beginning, so that it does not depend on who is faster."""
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-m", "model_core", "plan", "tiny", *options]
    try:
        done = subprocess.run(argv, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
