"""Weights in 8 bits with one scale a block, as DeepSeek-V3 is published: made into ordinary ones while reading.

w[i, j] = q[i, j] · scale[i // rows, j // columns]; the blocks at the lower and right edge are cut off.
Source: DeepSeek-V3 (arXiv 2412.19437), section 3.3.2, and the published `quantization_config`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_core.errors import CheckpointError

SCALE = "_scale_inv"
"""What the name of a weight's scales ends with; despite the name they are multiplied with."""
STORED_AS = "F8_E4M3"


def block_shape(quantization: Any, path: Path) -> tuple[int, int] | None:
    """Rows and columns of a block; None where weights are stored as they are. Raises CheckpointError for other methods."""
    if not quantization:
        return None
    found = quantization if isinstance(quantization, dict) else {"quant_method": quantization}
    method, format_, block = (found.get(name) for name in ("quant_method", "fmt", "weight_block_size"))
    if method != "fp8" or format_ not in ("e4m3", None):
        raise CheckpointError(
            f"{path} holds quantized weights (quantization_config: {method!r}, {format_!r}), which cannot be read here, only "
            "'fp8' in 'e4m3' with blocks; convert them with the tool that made them."
        )
    if not (isinstance(block, list) and len(block) == 2 and all(type(size) is int and size > 0 for size in block)):
        raise CheckpointError(f"{path}: quantization_config.weight_block_size is {block!r}, but it is two sizes, as [128, 128].")
    return block[0], block[1]


def scales_shape(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, ...]:
    """How many scales a weight of this shape has."""
    return tuple(math.ceil(size / of) for size, of in zip(shape, block, strict=True))


def dequantised(weight: Tensor, scales: Tensor, block: tuple[int, int]) -> Tensor:
    """The weight in float32."""
    rows, columns = weight.shape
    spread = scales.float().repeat_interleave(block[0], dim=0)[:rows].repeat_interleave(block[1], dim=1)[:, :columns]
    return weight.to(torch.float32).mul_(spread)
