"""`/api/v1/webhooks/`: the addresses that a project tells, and what they were sent. For owners."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform import webhooks
from r1platform.access import for_user
from r1platform.api import ProjectViewSet, wanted_project
from r1platform.models import Role, Webhook, WebhookDelivery


class WebhookSerializer(serializers.ModelSerializer[Webhook]):
    class Meta:
        model = Webhook
        fields = ["id", "project", "name", "url", "is_enabled", "disabled_reason", "created_at"]
        read_only_fields = fields


class NewWebhookSerializer(serializers.Serializer[Any]):
    project = serializers.CharField(required=False, help_text="Id or slug.")
    name = serializers.CharField(max_length=80)
    url = serializers.CharField(max_length=500, help_text="Gets a POST with JSON, signed as standardwebhooks.com says.")


class WebhookPatchSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80, required=False)
    url = serializers.CharField(max_length=500, required=False)
    is_enabled = serializers.BooleanField(required=False)


class WebhookSecretSerializer(WebhookSerializer):
    secret = serializers.CharField(read_only=True, help_text="Shown this once.")

    class Meta(WebhookSerializer.Meta):
        fields = [*WebhookSerializer.Meta.fields, "secret"]
        read_only_fields = fields


class DeliverySerializer(serializers.ModelSerializer[WebhookDelivery]):
    class Meta:
        model = WebhookDelivery
        fields = ["id", "event", "body", "num_attempts", "next_attempt_at", "last_status", "last_error", "created_at",
                  "delivered_at", "given_up_at"]  # fmt: skip
        read_only_fields = fields


class Webhooks(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Addresses outside that are told of alerts."""

    queryset = Webhook.objects.select_related("project")
    serializer_class = WebhookSerializer
    write_role = Role.OWNER
    shown_once = ("create", "renew_secret")
    filterset_fields = ["project", "is_enabled"]
    lookup_value_regex = r"\d{1,17}"

    def get_queryset(self) -> QuerySet[Webhook]:
        if getattr(self, "swagger_fake_view", False):
            return Webhook.objects.none()
        return for_user(Webhook.objects.select_related("project"), self._user(), role=Role.OWNER)

    @extend_schema(request=NewWebhookSerializer, responses={201: WebhookSecretSerializer})
    def create(self, request: Request) -> Response:
        """A new webhook; the answer holds its secret, this once."""
        values = self._values(NewWebhookSerializer, request)
        values.pop("project", None)
        project = wanted_project(request, role=Role.OWNER)
        made, secret = webhooks.webhook_create(project=project, user=self._user(), **values)
        return Response({**WebhookSerializer(made).data, "secret": secret}, status=status.HTTP_201_CREATED)

    @extend_schema(request=WebhookPatchSerializer, responses=WebhookSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Another name or address; on or off."""
        found = self.get_object()
        webhooks.webhook_update(webhook=found, user=self._user(), **self._values(WebhookPatchSerializer, request))
        return Response(WebhookSerializer(found).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Takes it away with what it still had to deliver."""
        webhooks.webhook_delete(webhook=self.get_object(), user=self._user())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=None, responses={200: WebhookSecretSerializer})
    @action(detail=True, methods=["post"], url_path="renew-secret")
    def renew_secret(self, request: Request, pk: str) -> Response:
        """Another secret for whatever is sent from now on."""
        found = self.get_object()
        secret = webhooks.webhook_secret_renew(webhook=found, user=self._user())
        return Response({**WebhookSerializer(found).data, "secret": secret})

    @extend_schema(request=None, responses={202: DeliverySerializer})
    @action(detail=True, methods=["post"])
    def ping(self, request: Request, pk: str) -> Response:
        """Sends a message without news."""
        found = self.get_object()
        data = {"project": found.project.slug, "by": self._user().username}
        with transaction.atomic():
            sent = webhooks.webhook_send(webhook=found, event="ping", data=data)
        if sent is None:
            raise ValidationError({"is_enabled": "This webhook is switched off; switch it on first."})
        sent.refresh_from_db()
        return Response(DeliverySerializer(sent).data, status=status.HTTP_202_ACCEPTED)

    @extend_schema(responses=DeliverySerializer(many=True))
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def deliveries(self, request: Request, pk: str) -> Response:
        """What it was sent, the newest 100."""
        return Response(DeliverySerializer(self.get_object().deliveries.order_by("-id")[:100], many=True).data)

    def _user(self) -> User:
        assert isinstance(self.request.user, User)
        return self.request.user

    def _values(self, kind: Any, request: Request) -> dict[str, Any]:
        serializer = kind(data=request.data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)
