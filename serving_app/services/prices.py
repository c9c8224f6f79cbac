"""What using a deployment costs from now on."""

from __future__ import annotations

from decimal import Decimal

from django.contrib.auth.models import User
from django.db import transaction

from model_core.errors import ConfigError
from r1platform.services import audit
from serving_app.models import Deployment, Price

PER_TOKEN = ("input_dollars", "cached_dollars", "output_dollars")
PER_TIME = "device_hour_dollars"
MOST = Decimal(1_000_000)


@transaction.atomic
def price_set(*, deployment: Deployment, user: User, **dollars: Decimal) -> Price:
    """Sets the price by its parts; what is not given is 0. It holds for requests that begin a second later.

    Raises ConfigError at the part that is wrong.
    """
    for name, value in dollars.items():
        if not 0 <= value <= MOST:
            raise ConfigError(f"{value} is no price: it lies between 0 and {MOST} dollars.", field=name)
        if value != round(value, 3):
            raise ConfigError(f"${value} cannot be kept: prices have at most three decimals.", field=name)
    if dollars.get(PER_TIME) and any(dollars.get(name) for name in PER_TOKEN):
        raise ConfigError("A price is by tokens or by device time, not both. Set one of them to 0.", field=PER_TIME)
    parts = {name: dollars.get(name, Decimal(0)) for name in (*PER_TOKEN, PER_TIME)}
    price, _made = Price.objects.update_or_create(deployment=deployment, defaults=parts)
    detail = {name: str(value) for name, value in parts.items() if value}
    audit(user=user, project=deployment.project, action="deployment.price", target=f"deployment:{deployment.pk}", detail=detail)
    return price
