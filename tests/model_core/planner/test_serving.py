"""What an engine's settings ask of its devices: by hand for each rule, and by the files of models that transformers writes."""

from __future__ import annotations

from typing import Any

import pytest

from model_core.config import PRESETS, ModelConfig
from model_core.planner import DenseModel, Load, ServedModel, cache_bytes, devices_that_fit, need, parameters
from model_core.planner.serving import cache_numbers
from model_core.serving.engines import ENGINES

QWEN = {
    "model_type": "qwen2", "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 512,
}  # fmt: skip
MODEL = ServedModel(parameters=1000, context=50, cache_numbers=6, has_latent_cache=False)


@pytest.mark.parametrize("preset", ["tiny", "small", "v2_lite", "v3_671b"])
def test_a_latent_cache_is_read_off_the_file_as_off_the_shape(preset: str) -> None:
    shape = ModelConfig.parse({"vocab_size": 64, **PRESETS[preset]})
    assert cache_numbers(shape.model_dump()) == (cache_bytes(shape, 1), True)
    assert ServedModel.of(shape) == ServedModel.published(
        shape.model_dump(), num_parameters=parameters(shape).trained, context=shape.max_position_embeddings, stored_as="F32"
    )


def test_keys_and_values_are_read_off_the_file_as_off_the_shape() -> None:
    assert cache_numbers(QWEN) == (cache_bytes(DenseModel.of(QWEN), 1), False) == (2 * 2 * 16 * 3, False)
    assert not ServedModel.of(DenseModel.of(QWEN)).has_latent_cache
    assert cache_numbers({**QWEN, "head_dim": 32})[0] == 2 * 2 * 32 * 3
    without = {key: QWEN[key] for key in QWEN if key != "num_key_value_heads"}
    assert cache_numbers(without)[0] == cache_bytes(DenseModel.of(without), 1) == 2 * 32 * 16 * 3, "as transformers fills it in"
    assert cache_numbers({**without, "model_type": "llama"})[0] == cache_numbers({**without, "model_type": "other"})[0] == 2 * 4 * 16 * 3


@pytest.mark.parametrize("config", [{}, {"num_hidden_layers": "3"}, {"kv_lora_rank": -1}, {**QWEN, "num_hidden_layers": 1 << 40}])
def test_what_a_file_does_not_say_is_nothing(config: dict[str, Any]) -> None:
    assert cache_numbers(config)[0] == 0


def test_the_parts_by_hand() -> None:
    found = need(MODEL, Load(number_bytes=2, rows=4, tokens=10))
    assert (found.weights, found.request, found.laid_out) == (2000, 120, 0)
    assert (found.least, found.most) == (2120, 2480)
    assert [found.rows_within(room) for room in (1999, 2119, 2120, 2360, 9999)] == [0, 0, 1, 3, 4]


def test_a_cache_of_a_size_is_there_from_the_start() -> None:
    found = need(MODEL, Load(number_bytes=4, rows=4, tokens=10, cache_tokens=25))
    assert (found.laid_out, found.least, found.most) == (600, 4600, 4600)
    assert found.rows_within(4600) == 2, "25 tokens are room for two of ten"
    small = need(MODEL, Load(number_bytes=4, rows=4, tokens=10_000, cache_tokens=25))
    assert small.least == 4600 and small.rows_within(4600) == 0, "it starts, though no request may be as long as the model allows"


def test_devices_share_the_weights_and_the_heads_but_not_latents() -> None:
    two = Load(number_bytes=2, rows=1, tokens=10, devices=2)
    assert (need(MODEL, two).weights, need(MODEL, two).request) == (1000, 60)
    latent = ServedModel(parameters=1001, context=50, cache_numbers=6, has_latent_cache=True)
    assert (need(latent, two).weights, need(latent, two).request) == (1001, 120)


def test_the_smallest_number_of_devices_over_which_it_fits() -> None:
    one = Load(number_bytes=2, rows=1, tokens=10)
    assert [devices_that_fit(MODEL, one, room=room, most=8) for room in (2120, 2119, 530, 529, 264)] == [1, 2, 4, 8, None]
    assert devices_that_fit(MODEL, one, room=530, most=2) is None


def load(engine: str, *, on_gpu: bool = False, stored_as: str = "F32", **settings: Any) -> Load:
    kind = ENGINES.get(engine)
    model = ServedModel(1000, 50, 6, has_latent_cache=False, stored_as=stored_as)
    found: Load = kind().load(model, kind.Config.parse(settings), on_gpu=on_gpu)
    return found


def test_each_engine_says_what_it_does_at_once() -> None:
    assert load("builtin", max_running_requests=3) == Load(number_bytes=4, rows=3, tokens=50)
    assert load("fake").number_bytes == 0
    assert load("sglang") == Load(number_bytes=4, rows=8, tokens=50, cache_number_bytes=4, cache_tokens=4096)
    on_gpu = load("sglang", on_gpu=True, tensor_parallel_size=4, context_length=20, max_running_requests=2)
    assert on_gpu == Load(number_bytes=2, rows=2, tokens=20, devices=4, cache_number_bytes=2)
    assert load("sglang", on_gpu=True, max_total_tokens=640).cache_tokens == 640
    assert load("sglang", on_gpu=True, device="cpu") == load("sglang")


@pytest.mark.parametrize(("settings", "stored_as", "size"), [
    ({}, "F32", 2), ({}, "BF16", 2), ({}, "F8_E4M3", 1), ({"dtype": "float32"}, "BF16", 4), ({"dtype": "float16"}, "F32", 2),
])
def test_the_format_that_sglang_takes_on_a_gpu(settings: dict[str, Any], stored_as: str, size: int) -> None:
    assert load("sglang", on_gpu=True, stored_as=stored_as, **settings).number_bytes == size


def test_formats_of_weights_and_cache_count_apart() -> None:
    awq = load("sglang", on_gpu=True, quantization="awq", cache_dtype="fp8_e4m3", data_parallel_size=3)
    assert (awq.number_bytes, awq.cache_number_bytes, awq.copies) == (0.5, 1, 3)
    assert (need(MODEL, awq).weights, need(MODEL, awq).request) == (500, 300)
    assert devices_that_fit(MODEL, awq, room=799, most=6) == 2 and devices_that_fit(MODEL, awq, room=799, most=5) is None
    assert load("sglang", on_gpu=True, quantization="fp8").number_bytes == 1
