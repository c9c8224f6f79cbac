"""Bytes in words, in the units that devices are sold in: a GB is 2³⁰ bytes here as it is there."""

from __future__ import annotations

UNITS = (("GB", 2**30), ("MB", 2**20), ("KB", 2**10))


def in_bytes(number: int) -> str:
    """The largest unit of which there is one."""
    for name, size in UNITS:
        if number >= size:
            return f"{number / size:,.2f} {name}"
    return f"{number} B"
