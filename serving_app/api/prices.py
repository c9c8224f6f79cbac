"""`/api/v1/deployments/ID/price/`: what using a deployment costs."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from serving_app import services
from serving_app.models import Price
from serving_app.services.prices import MOST, PER_TIME, PER_TOKEN

_WORDS = {
    "input_dollars": "Dollars per million input tokens that were not in the prefix cache.",
    "cached_dollars": "Dollars per million input tokens that were.",
    "output_dollars": "Dollars per million tokens of thinking and answer.",
    "device_hour_dollars": "Dollars an hour of a device; instead of prices by tokens.",
}


class PriceSerializer(serializers.ModelSerializer[Price]):
    """A price by tokens or by device time; 0 is free."""

    class Meta:
        model = Price
        fields = [*PER_TOKEN, PER_TIME]
        extra_kwargs = {name: {"min_value": 0, "max_value": MOST, "help_text": words} for name, words in _WORDS.items()}


class Priced:
    """The part of the deployments' resource that is about money."""

    @extend_schema(responses=PriceSerializer)
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def price(self: Any, request: Request, pk: str) -> Response:
        """The price; all 0 when none was set."""
        return Response(PriceSerializer(getattr(self.get_object(), "price", Price())).data)

    @extend_schema(request=PriceSerializer, responses=PriceSerializer)
    @price.mapping.put
    def set_price(self: Any, request: Request, pk: str) -> Response:
        """Sets it whole: what is not given is 0. Requests that begin a second later are booked by it."""
        serializer = PriceSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        assert isinstance(request.user, User), "the permission class lets nobody else through"
        made = services.price_set(deployment=self.get_object(), user=request.user, **serializer.validated_data)
        return Response(PriceSerializer(made).data)
