"""Devices by name: how much memory they have and how fast they multiply; and how several of them are written.

`8xH200` are eight known ones, `2xCPU:16GB` are two of any name and size. Memory is in bytes, a GB of a device is 2³⁰ of
them. Peaks are FLOP/s of dense bfloat16 products that are summed in float32.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_core.errors import ConfigError

GIB = 2**30
USABLE_FRACTION = 0.9
"""Share of a device's memory that is planned with: the rest is for its driver, for communication and fragmentation. A
margin that was chosen, not measured."""


@dataclass(frozen=True)
class Device:
    """One kind of device; `peak_flops` is None where it is not known."""

    name: str
    memory_bytes: int
    peak_flops: float | None = None
    source: str = "as stated"

    @property
    def usable_bytes(self) -> int:
        """What is planned with."""
        return int(self.memory_bytes * USABLE_FRACTION)


@dataclass(frozen=True)
class Fleet:
    """Several devices of one kind."""

    count: int
    device: Device


DEVICES = {
    device.name: device
    for device in (
        Device("RTX3060", 12 * GIB, 25.5e12, "twice the 12.74 TFLOP/s of float32, as NVIDIA's GA102 whitepaper has it for Ampere"),
        Device("RTX3090", 24 * GIB, 71e12, "NVIDIA GA102 whitepaper"),
        Device("RTX4080", 16 * GIB, 97.5e12, "NVIDIA Ada whitepaper"),
        Device("RTX4090", 24 * GIB, 165.2e12, "NVIDIA Ada whitepaper"),
        Device("L40S", 48 * GIB, 362.05e12, "NVIDIA L40S datasheet"),
        Device("A100", 80 * GIB, 312e12, "NVIDIA A100 datasheet"),
        Device("H100", 80 * GIB, 989.4e12, "NVIDIA H100 datasheet, SXM"),
        Device("H800", 80 * GIB, 989.4e12, "the peak of H100 SXM"),
        Device("H200", 141 * GIB, 989.4e12, "NVIDIA H200 datasheet, SXM"),
        Device("B200", 180 * GIB, 2250e12, "NVIDIA DGX B200 datasheet, an eighth"),
    )
}
"""The known ones, each with the source of its peak."""

_FLEET = re.compile(r"(?P<count>\d{1,9})x(?P<name>[A-Za-z][A-Za-z0-9_.-]*?)(?::(?P<size>\d{1,9}(?:\.\d{1,9})?)GB)?")


def parse_devices(text: str) -> Fleet:
    """Raises ConfigError unless `text` is like 8xH200 or 2xCPU:16GB."""
    match = _FLEET.fullmatch(text)
    if match is None or int(match["count"]) == 0:
        raise ConfigError(f"“{text}” names no devices; write them like 8xH200 or 2xCPU:16GB.", field="devices")
    name, known = match["name"], DEVICES.get(match["name"].upper())
    if match["size"] is None:
        if known is None:
            raise ConfigError(
                f"There is no device “{name}” whose memory is known. Known: {', '.join(DEVICES)}; or state it, like "
                f"{match['count']}x{name}:16GB.", field="devices",
            )  # fmt: skip
        return Fleet(int(match["count"]), known)
    memory_bytes = int(float(match["size"]) * GIB)
    if memory_bytes == 0:
        raise ConfigError(f"“{text}” are devices without memory; state more than 0 GB.", field="devices")
    return Fleet(int(match["count"]), Device(name, memory_bytes, known.peak_flops if known else None))
