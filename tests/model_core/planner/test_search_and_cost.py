"""FLOPs, time and cost to the published figures; the smallest layout is the smallest, and says why no smaller one is."""

from __future__ import annotations

import pytest

from model_core.config import ModelConfig, PrecisionConfig, RunConfig, preset
from model_core.errors import ConfigError
from model_core.planner import (
    DEVICES,
    Device,
    Work,
    cost_of_tokens,
    count_parameters,
    flops,
    from_peak,
    memory,
    parse_devices,
    price_of_hours,
    smallest_layout,
    stated,
)
from model_core.planner.search import layouts, sizes
from tests.model_core.planner.test_parameters import shape


def test_the_published_costs() -> None:
    """Source: DeepSeek-V3 (arXiv 2412.19437), table 1; DeepSeek-R1 in Nature 645."""
    assert price_of_hours(2664e3 + 119e3 + 5e3, 2) == 5_576_000
    assert price_of_hours(101e3 + 5e3 + 41e3, 2) == 294_000


def test_tokens_and_throughput_give_hours_and_price() -> None:
    cost = cost_of_tokens(3.6e6, stated(1000), num_devices=4, hourly_price=2)
    assert (cost.seconds, cost.device_hours, cost.price) == (3600, 4, 8)
    assert cost_of_tokens(1e6, stated(10), num_devices=1).price is None


def test_v3_reached_a_plausible_share_of_the_peak() -> None:
    """14.8T tokens in 2,664K hours of H800: 30 to 50 % of the bfloat16 peak, at twice of which part of it ran (fp8)."""
    per_token = flops(preset("v3_671b"), 4096).training
    hours = cost_of_tokens(
        14.8e12, from_peak(DEVICES["H800"].peak_flops or 0, 0.4, num_devices=2048, flops_per_token=per_token), num_devices=2048
    ).device_hours
    assert 0.3 < 0.4 * hours / 2664e3 < 0.5


def test_flops_are_two_a_parameter_and_attention_grows_with_length() -> None:
    config = shape()
    short, long = flops(config, 100), flops(config, 200)
    assert long.attention == 2 * short.attention and long.forward - long.attention == short.forward - short.attention
    assert short.forward - short.attention == pytest.approx(2 * count_parameters(config)[1], rel=0.01)
    assert short.training == 3 * short.forward and short.recomputed == 0
    again = flops(config, 100, checkpointing=True)
    assert again.training == short.training and again.recomputed == short.forward - 2 * 97 * config.hidden_size
    assert flops(shape(num_nextn_predict_layers=1), 100).training > short.training


@pytest.mark.parametrize("utilization", [0, 1.5])
def test_an_impossible_share_of_the_peak_is_refused(utilization: float) -> None:
    with pytest.raises(ConfigError, match="share of the peak"):
        from_peak(1e12, utilization, num_devices=1, flops_per_token=1)


def test_devices_are_read() -> None:
    assert parse_devices("8xH200").count == 8 and parse_devices("1xrtx3060").device is DEVICES["RTX3060"]
    stated_ones = parse_devices("2xCPU:16GB")
    assert (stated_ones.count, stated_ones.device) == (2, Device("CPU", 16 << 30))
    assert parse_devices("4xH100:64GB").device.peak_flops == DEVICES["H100"].peak_flops


@pytest.mark.parametrize("text", ["", "H200", "0xH200", "8xABC", "8xH200:16", "-1xH200", "8xCPU:0GB", "8 x H200"])
def test_devices_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_devices(text)
    assert refused.value.field == "devices"


def run_of(config: ModelConfig) -> RunConfig:
    return RunConfig.parse({"phase": "cold_start", "model": config.resolved(), "precision": {"dtype": "bfloat16"}})


def test_the_smallest_layout_is_the_smallest() -> None:
    config, work = preset("v2_lite"), Work()
    found = smallest_layout(run_of(config), config, work, DEVICES["H200"], count=8)
    assert found.fit is not None and found.fit.memory.peak.total <= DEVICES["H200"].usable_bytes
    smaller = [n for n in sizes(8) if n < found.fit.parallel.num_processes]
    assert [fit.parallel.num_processes for fit in found.too_small] == smaller
    for num in smaller:
        needs = [memory(config, one, PrecisionConfig(dtype="bfloat16"), work).peak.total for one in layouts(run_of(config), config, num)]
        assert min(needs) > DEVICES["H200"].usable_bytes


def test_what_fits_one_device_takes_one() -> None:
    found = smallest_layout(run_of(shape()), shape(), Work(), DEVICES["RTX3060"], count=8)
    assert found.fit is not None and found.fit.parallel.num_processes == 1 and not found.too_small


def test_what_fits_nowhere_says_why() -> None:
    found = smallest_layout(run_of(preset("v3_671b")), preset("v3_671b"), Work(), DEVICES["RTX3060"], count=8)
    assert found.fit is None and [fit.parallel.num_processes for fit in found.too_small] == [1, 2, 4, 8]


def test_only_layouts_of_the_trainer_are_tried() -> None:
    for one in layouts(run_of(shape()), shape(), 4):
        assert one.zero_stage > 0 and (one.pipeline == 1 or one.zero_stage == 1) and (one.tensor == 1 or one.expert == 1)
