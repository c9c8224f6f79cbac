"""Slow twin of `model_core.model.exchange.blocks`: every number from its eight bits, one after the other.

Source: OCP 8-bit floating point specification 1.0, section 5, E4M3.
"""

from __future__ import annotations

import torch
from torch import Tensor


def value_of(byte: int) -> float:
    """A number of one sign, four exponent and three mantissa bits; there is no infinity."""
    sign, exponent, mantissa = byte >> 7, byte >> 3 & 15, byte & 7
    if (exponent, mantissa) == (15, 7):
        return float("nan")
    size = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if sign else size


def dequantised_slowly(weight: Tensor, scales: Tensor, block: tuple[int, int]) -> Tensor:
    """Each number times the scale of the block that it lies in."""
    found = torch.empty(weight.shape)
    bits = weight.view(torch.uint8).tolist()
    for row, numbers in enumerate(bits):
        for column, byte in enumerate(numbers):
            found[row, column] = torch.tensor(value_of(byte)) * scales[row // block[0], column // block[1]].float()
    return found


def quantised(weight: Tensor, block: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """8 bits and scales, so that the largest number of each block becomes the largest that there is, 448."""
    rows, columns = weight.shape
    scales = torch.empty(-(-rows // block[0]), -(-columns // block[1]))
    stored = torch.empty_like(weight)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            part = (slice(i * block[0], (i + 1) * block[0]), slice(j * block[1], (j + 1) * block[1]))
            scales[i, j] = weight[part].abs().max().clamp_min(1e-12) / 448
            stored[part] = weight[part] / scales[i, j]
    return stored.to(torch.float8_e4m3fn), scales
