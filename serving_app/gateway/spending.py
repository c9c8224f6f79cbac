"""What a request could cost, what it did cost, and what a key has spent this month."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db.models import Sum

from serving_app.gateway.errors import GatewayError
from serving_app.gateway.limits import LIMITS, NOTHING, Terms, this_month
from serving_app.gateway.routing import Route
from serving_app.gateway.stream import cached_tokens, reasoning_tokens
from serving_app.models import Price, UsageRecord

_MILLION = 1_000_000
_PLACES = Decimal("1e-9")


@dataclass(frozen=True)
class Used:
    """What one request has used."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    device_seconds: float = 0.0

    @classmethod
    def of(cls, usage: dict[str, Any], device_seconds: float) -> Used:
        """Of an engine's usage object."""
        prompt = int(usage.get("prompt_tokens") or 0)
        cached, completion = min(cached_tokens(usage), prompt), int(usage.get("completion_tokens") or 0)
        return cls(prompt, cached, completion, reasoning_tokens(usage), device_seconds)


def cost_of(price: Price | None, used: Used) -> Decimal:
    """Dollars, to a billionth."""
    if price is None:
        return NOTHING
    if price.device_hour_dollars:
        return (Decimal(used.device_seconds) * price.device_hour_dollars / 3600).quantize(_PLACES)
    fresh = used.prompt_tokens - used.cached_tokens
    dollars = (
        fresh * price.input_dollars + used.cached_tokens * price.cached_dollars + used.completion_tokens * price.output_dollars
    )
    return (dollars / _MILLION).quantize(_PLACES)


def most_of(terms: Terms, route: Route, *, prompt: int, answer: int | None, num_answers: int) -> tuple[int, Decimal]:
    """Tokens and dollars that a request could use at most, for terms that reserve them; else nothing.

    `prompt` is the most tokens that its text can be, `answer` what it asked for. Time has no such bound: it is booked
    afterwards. Raises GatewayError 400 when nothing bounds the answer.
    """
    if not terms.reserves:
        return 0, NOTHING
    if answer is None and route.context is None:
        message = f"This key has limits, and how long an answer of “{route.name}” gets is not known. Send max_tokens."
        raise GatewayError(400, message, code="missing_max_tokens", param="max_tokens")
    if route.context is not None:
        prompt = min(prompt, route.context)
    said = num_answers * (route.context or 0) if answer is None else num_answers * answer
    tokens = said if answer is None else prompt + said
    price = route.price
    if price is None or price.device_hour_dollars:
        return tokens, NOTHING
    dearest = max(price.input_dollars, price.cached_dollars)
    return tokens, ((prompt * dearest + said * price.output_dollars) / _MILLION).quantize(_PLACES)


def account_open(key_id: int) -> None:
    """Opens the account of a key that asks for the first time in this process, with what the table says it has spent."""
    if LIMITS.knows(key_id):
        return
    first = datetime(*this_month(), 1, tzinfo=UTC)
    rows = UsageRecord.objects.filter(api_key=key_id, created_at__gte=first).order_by()
    LIMITS.open(key_id, spent=rows.aggregate(dollars=Sum("cost_dollars", default=NOTHING))["dollars"])
