"""Number formats and shards of a directory: what is stored is what is read, whatever way it was stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_core.errors import CheckpointError
from model_core.model import Transformer, load_pretrained, save_pretrained
from model_core.model.exchange import convert
from model_core.model.exchange.blocks import dequantised
from tests.model_core.model.random_models import GROUPS, V2, YARN, forget, say, shape, theirs, tokens
from tests.model_core.reference.fp8_blocks import dequantised_slowly, quantised, value_of

SHAPES = {
    "v3": {**GROUPS, "q_lora_rank": 10, "rope_scaling": YARN, "num_nextn_predict_layers": 1},
    "v2_tied": {**V2, "tie_word_embeddings": True},
}


def made(name: str = "v3") -> Transformer:
    torch.manual_seed(7)
    model = Transformer(shape(**SHAPES[name]))
    with torch.no_grad():
        for key, buffer in model.named_buffers():
            if key.endswith("correction_bias"):
                buffer.normal_(0, 0.1)
    return model


def same(one: Transformer, other: Transformer) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


def stored(directory: Path) -> dict[str, Tensor]:
    return {name: tensor for file in sorted(directory.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_written_in_a_format_is_read_in_it(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    model = made(name)
    save_pretrained(model, tmp_path / "model", dtype=dtype)
    expected = {key: t if key.endswith("correction_bias") else t.to(dtype) for key, t in model.state_dict().items()}
    read, wide = load_pretrained(tmp_path / "model", dtype=dtype), load_pretrained(tmp_path / "model")
    for key, tensor in expected.items():
        assert read.state_dict()[key].dtype == tensor.dtype and torch.equal(read.state_dict()[key], tensor), key
        assert wide.state_dict()[key].dtype == torch.float32 and torch.equal(wide.state_dict()[key], tensor.float()), key
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    save_pretrained(read, tmp_path / "again")
    assert same(load_pretrained(tmp_path / "again", dtype=dtype), read), "a model is written in its own format by default"
    assert read.lm_head.weight.data_ptr() != read.model.embed_tokens.weight.data_ptr() or name == "v2_tied"


def test_transformers_reads_our_16_bit_as_its_own(tmp_path: Path) -> None:
    reference = theirs(shape(**GROUPS)).bfloat16()
    reference.save_pretrained(tmp_path / "theirs")
    ours = load_pretrained(tmp_path / "theirs", dtype=torch.bfloat16)
    save_pretrained(ours, tmp_path / "ours")
    again = type(reference).from_pretrained(tmp_path / "ours", dtype="auto")
    assert again.dtype == torch.bfloat16
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in reference.state_dict().items())
    batch = tokens(ours.config)
    wide, their_wide = load_pretrained(tmp_path / "ours"), type(reference).from_pretrained(tmp_path / "ours", dtype=torch.float32)
    with torch.no_grad():
        assert (wide(batch) - their_wide(batch).logits).abs().max() <= 1e-5


@pytest.mark.parametrize("limit", [1, 700, 10_000, 10**9])
def test_shards_hold_no_more_than_they_may_and_together_everything(tmp_path: Path, limit: int) -> None:
    model = made()
    save_pretrained(model, tmp_path, max_shard_bytes=limit)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert same(load_pretrained(tmp_path), model)
    assert (tmp_path / "model.safetensors.index.json").exists() == (len(files) > 1)
    for file in files:
        sizes = [tensor.numel() * tensor.itemsize for tensor in load_file(file).values()]
        assert sum(sizes) <= limit or len(sizes) == 1
    if len(files) > 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(t.numel() * t.itemsize for t in stored(tmp_path).values())
        assert files[-1].name == f"model-{len(files):05d}-of-{len(files):05d}.safetensors"


def test_two_widths_in_one_file_are_aligned(tmp_path: Path) -> None:
    save_pretrained(made(), tmp_path, dtype=torch.bfloat16)
    raw = (tmp_path / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    for name, said in header.items():
        if name != "__metadata__":
            assert said["data_offsets"][0] % {"F32": 4, "BF16": 2}[said["dtype"]] == 0, name


def test_a_number_too_large_for_the_format_is_refused_by_name(tmp_path: Path) -> None:
    model = made()
    with torch.no_grad():
        model.model.norm.weight[3] = 1e5
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight holds NaN or infinity in torch\.float16"):
        save_pretrained(model, tmp_path / "half", dtype=torch.float16)
    assert not list(tmp_path.iterdir()), "nothing of it stays"
    save_pretrained(model, tmp_path / "whole")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight holds numbers too large for torch\.float16"):
        load_pretrained(tmp_path / "whole", dtype=torch.float16)
    with pytest.raises(CheckpointError, match=r"cannot be written in torch\.float64"):
        save_pretrained(model.double(), tmp_path / "double")


def in_8_bits(directory: Path, block: tuple[int, int]) -> dict[str, Tensor]:
    """Makes a directory as DeepSeek-V3 is published, and says what each weight of it means."""
    state, result, meant = stored(directory), {}, {}
    for name, tensor in state.items():
        if name.endswith("_proj.weight") or "_proj_with_mqa" in name or ("self_attn" in name and "_b_proj" in name):
            weight, scales = quantised(tensor, block)
            result |= {name: weight, f"{name}_scale_inv": scales}
            meant[name] = dequantised_slowly(weight, scales, block)
        else:
            result[name] = tensor.bfloat16() if tensor.ndim == 2 else tensor
            meant[name] = result[name].float()
    save_file(result, directory / "model.safetensors", metadata={"format": "pt"})
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": list(block)}
    say(directory, quantization_config=quantization, torch_dtype="bfloat16", dtype="bfloat16")
    return meant


@pytest.mark.parametrize("block", [(128, 128), (8, 16), (5, 7)])
def test_8_bit_weights_are_read_as_their_slow_twin_reads_them(tmp_path: Path, block: tuple[int, int]) -> None:
    save_pretrained(made(), tmp_path / "eight")
    meant = in_8_bits(tmp_path / "eight", block)
    save_pretrained(load_pretrained(tmp_path / "eight"), tmp_path / "plain")
    found = stored(tmp_path / "plain")
    assert found.keys() == meant.keys()
    for name, tensor in meant.items():
        assert torch.equal(found[name], tensor), name
    convert(tmp_path / "eight", tmp_path / "sixteen", say=str)
    assert "quantization_config" not in json.loads((tmp_path / "sixteen" / "config.json").read_text())
    for name, tensor in stored(tmp_path / "sixteen").items():
        assert torch.equal(tensor, meant[name] if name.endswith("correction_bias") else meant[name].bfloat16()), name


def test_all_8_bit_numbers_and_scales_in_16_bits() -> None:
    weight = torch.arange(256, dtype=torch.uint8).view(16, 16)[:, :15].contiguous().view(torch.float8_e4m3fn)
    scales = torch.tensor([[0.5, 3.0], [1e-3, 7.25]], dtype=torch.bfloat16)
    fast, slow = dequantised(weight, scales, (10, 8)), dequantised_slowly(weight, scales, (10, 8))
    assert torch.equal(fast, slow)
    assert value_of(0b0_1111_110) == 448 and value_of(0b0_0000_001) == 2.0**-9


def test_8_bits_that_cannot_be_understood_are_refused(tmp_path: Path) -> None:
    save_pretrained(made(), tmp_path)
    in_8_bits(tmp_path, (8, 16))
    good, config = stored(tmp_path), (tmp_path / "config.json").read_text()
    name = "model.layers.0.self_attn.o_proj.weight"

    def refused(words: str) -> None:
        with pytest.raises(CheckpointError, match=words):
            load_pretrained(tmp_path)
        save_file(good, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(config)

    for change, words in (
        ({"quant_method": "fp8", "weight_block_size": [8, 8]}, r"_scale_inv has shape .* config.json means"),
        ({"quant_method": "fp8", "weight_block_size": 8}, "weight_block_size is 8, but it is two sizes"),
        ({"quant_method": "fp8", "weight_block_size": [0, 8]}, r"weight_block_size is \[0, 8\]"),
        ({"quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [8, 16]}, "quantized weights .*'e5m2'"),
        ({"quant_method": "awq"}, "quantized weights .*'awq'"),
        ({"quant_method": "gptq", "bits": 4}, "quantized weights .*'gptq'"),
    ):
        say(tmp_path, quantization_config=change)
        refused(words)
    forget(tmp_path, "quantization_config")
    refused("is stored in 8 bits without blocks")
    save_file({key: t for key, t in good.items() if key != f"{name}_scale_inv"}, tmp_path / "model.safetensors")
    refused(r"lacks 1 of \d+ tensors: model\.layers\.0\.self_attn\.o_proj\.weight_scale_inv")
    save_file(good | {"model.norm.weight_scale_inv": torch.ones(1)}, tmp_path / "model.safetensors")
    refused(r"1 unexpected tensor: model\.norm\.weight_scale_inv")
    nan = good[name].view(torch.uint8).clone()
    nan[2, 3] = 0b0_1111_111
    save_file(good | {name: nan.view(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    refused("o_proj.weight holds NaN")
    save_file(good | {name: nan}, tmp_path / "model.safetensors")
    refused(r"unexpected tensor: .*o_proj\.weight_scale_inv")
    load_pretrained(tmp_path)
