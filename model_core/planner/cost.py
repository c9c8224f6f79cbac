"""Time and money of a training: from tokens and a throughput, measured or stated as a share of the device's peak.

Units: seconds, device-hours, and whatever currency the price is in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from model_core.errors import ConfigError

HOUR = 3600.0


@dataclass(frozen=True)
class Throughput:
    """Tokens a second of all devices together, and where the number is from."""

    tokens_per_second: float
    source: str


@dataclass(frozen=True)
class Cost:
    """What a training takes; `price` is None where no price of a device-hour was given."""

    seconds: float
    device_hours: float
    price: float | None


def stated(tokens_per_second: float) -> Throughput:
    """A throughput that was measured. Raises ConfigError unless it is positive."""
    if not tokens_per_second > 0:
        raise ConfigError(f"The throughput is {tokens_per_second} tokens a second; it must be positive.", field="tokens_per_second")
    return Throughput(tokens_per_second, "as stated")


def from_peak(peak_flops: float, utilization: float, *, num_devices: int, flops_per_token: float) -> Throughput:
    """The throughput at a share of the peak (MFU). Raises ConfigError unless the share is above 0 and at most 1."""
    if not 0 < utilization <= 1:
        raise ConfigError(f"mfu is {utilization}, a share of the peak; give more than 0 and at most 1.", field="mfu")
    rate = num_devices * peak_flops * utilization / flops_per_token
    return Throughput(rate, f"{utilization:.0%} of the peak of {num_devices} devices")


def cost_of_tokens(num_tokens: float, throughput: Throughput, *, num_devices: int, hourly_price: float | None = None) -> Cost:
    """Time, device-hours and price of a training over `num_tokens`. Raises ConfigError where they are beyond all numbers."""
    seconds = num_tokens / throughput.tokens_per_second
    hours = seconds * num_devices / HOUR
    price = None if hourly_price is None else price_of_hours(hours, hourly_price)
    if not math.isfinite(hours):
        raise ConfigError(
            f"At {throughput.tokens_per_second:g} tokens a second {num_tokens:g} never end; give fewer tokens, or a higher speed.",
            field="tokens",
        )
    if price is not None and not math.isfinite(price):
        raise ConfigError(f"The price of a device-hour is {hourly_price:g}, too high to reckon with; lower it.", field="price")
    return Cost(seconds, hours, price)


def price_of_hours(device_hours: float, hourly_price: float) -> float:
    """Device-hours times the price of one. Raises ConfigError for a negative price.

    Source of the way to reckon: DeepSeek-V3 (arXiv 2412.19437), table 1.
    """
    if hourly_price < 0:
        raise ConfigError(f"The price of a device-hour is {hourly_price}; it cannot be negative.", field="price")
    return device_hours * hourly_price
