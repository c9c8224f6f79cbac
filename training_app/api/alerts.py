"""`/api/v1/alert-rules/` and `/alerts/`: what calls people, and what they were called for."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform.access import for_user
from r1platform.api import ProjectViewSet, wanted_project
from r1platform.filters import RowFilters
from r1platform.models import Role, Webhook
from training_app import services
from training_app.alert_rules import condition
from training_app.api.fields import user_of, values_of
from training_app.models import Alert, AlertKind, AlertRule, PhaseRun


class RuleRunField(serializers.PrimaryKeyRelatedField[PhaseRun]):
    """A run of a project that the caller is a member of."""

    def get_queryset(self) -> Any:
        request = self.context.get("request")
        return PhaseRun.objects.none() if request is None else for_user(PhaseRun.objects.all(), request.user)


class RuleWebhookField(serializers.PrimaryKeyRelatedField[Webhook]):
    """A webhook of a project that the caller is a member of."""

    def get_queryset(self) -> Any:
        request = self.context.get("request")
        return Webhook.objects.none() if request is None else for_user(Webhook.objects.all(), request.user)


class AlertRuleSerializer(serializers.ModelSerializer[AlertRule]):
    condition = serializers.SerializerMethodField(help_text="The rule as a sentence.")
    mail_to: Any = serializers.SlugRelatedField("username", many=True, read_only=True)

    @extend_schema_field(serializers.CharField())
    def get_condition(self, rule: AlertRule) -> str:
        """Of what it calls for."""
        return condition(rule)

    class Meta:
        model = AlertRule
        fields = ["id", "project", "name", "kind", "condition", "run", "phase", "metric", "threshold", "steps", "sign", "seconds",
                  "mail_to", "webhook", "is_enabled", "created_at"]  # fmt: skip
        read_only_fields = fields


class AlertRulePatchSerializer(serializers.Serializer[Any]):
    """Settings of a rule; those of other kinds are left alone."""

    name = serializers.CharField(max_length=80, required=False)
    kind = serializers.ChoiceField(choices=AlertKind.choices, required=False)
    run = RuleRunField(queryset=PhaseRun.objects.none(), required=False, allow_null=True)
    phase = serializers.CharField(max_length=60, required=False, allow_blank=True)
    metric = serializers.CharField(max_length=120, required=False, allow_blank=True)
    threshold = serializers.FloatField(
        required=False, allow_null=True, help_text="Of above and below a value of the metric; of money percent of a key's limit."
    )
    steps = serializers.IntegerField(required=False, min_value=1, max_value=10_000)
    sign = serializers.CharField(max_length=40, required=False, allow_blank=True)
    seconds = serializers.FloatField(required=False, allow_null=True)
    mail_to = serializers.SlugRelatedField("username", queryset=User.objects.filter(is_active=True), many=True, required=False)
    webhook = RuleWebhookField(queryset=Webhook.objects.none(), required=False, allow_null=True)
    is_enabled = serializers.BooleanField(required=False)


class NewAlertRuleSerializer(AlertRulePatchSerializer):
    project = serializers.CharField(required=False, help_text="Id or slug.")
    name = serializers.CharField(max_length=80)
    kind = serializers.ChoiceField(choices=AlertKind.choices)


class AlertSerializer(serializers.ModelSerializer[Alert]):
    resolved_by = serializers.CharField(source="resolved_by.username", read_only=True, allow_null=True, default=None)
    key_name = serializers.CharField(source="api_key.name", read_only=True, allow_null=True, default=None)

    class Meta:
        model = Alert
        fields = ["id", "project", "run", "api_key", "key_name", "rule", "name", "message", "step", "raised_at", "resolved_at",
                  "resolved_by", "resolution", "mail_error"]  # fmt: skip
        read_only_fields = fields


class SeenSerializer(serializers.Serializer[Any]):
    note = serializers.CharField(max_length=2000, required=False, allow_blank=True, help_text="Kept with your name.")


class AlertFilter(RowFilters):
    """Of the list of alerts."""

    is_open = filters.BooleanFilter(field_name="resolved_at", lookup_expr="isnull")

    class Meta:
        model = Alert
        fields = ["project", "run", "api_key", "rule", "is_open"]


class AlertRules(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Conditions on the runs of a project and on keys that spend in it, and whom they tell."""

    queryset = AlertRule.objects.select_related("project").prefetch_related("mail_to").order_by("id")
    serializer_class = AlertRuleSerializer
    filterset_fields = ["project", "kind", "run", "is_enabled"]
    lookup_value_regex = r"\d{1,17}"

    @extend_schema(request=NewAlertRuleSerializer, responses={201: AlertRuleSerializer})
    def create(self, request: Request) -> Response:
        """A rule; it looks at what comes after it."""
        values = values_of(NewAlertRuleSerializer, request, self.get_serializer_context())
        values.pop("project", None)
        made = services.alert_rule_create(project=wanted_project(request, role=Role.EDITOR), user=user_of(request), **values)
        return Response(AlertRuleSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=AlertRulePatchSerializer, responses=AlertRuleSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Changes what is given; what the rule remembered of its runs is forgotten."""
        rule = self.get_object()
        values = values_of(AlertRulePatchSerializer, request, self.get_serializer_context())
        services.alert_rule_update(rule=rule, user=user_of(request), **values)
        return Response(AlertRuleSerializer(self.get_object()).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Takes a rule away; its alerts stay."""
        services.alert_rule_delete(rule=self.get_object(), user=user_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class Alerts(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """What the rules have found, newest first."""

    queryset = Alert.objects.select_related("project", "run__project", "api_key", "rule__webhook", "resolved_by")
    serializer_class = AlertSerializer
    filterset_class = AlertFilter
    lookup_value_regex = r"\d{1,17}"

    def get_queryset(self) -> QuerySet[Alert]:
        return super().get_queryset().order_by("-id")

    @extend_schema(request=SeenSerializer, responses=AlertSerializer)
    @action(detail=True, methods=["post"])
    def see(self, request: Request, pk: str) -> Response:
        """Closes an open alert with your name; one that is closed stays as it is."""
        values = values_of(SeenSerializer, request, self.get_serializer_context())
        services.alert_see(alert=self.get_object(), user=user_of(request), note=values.get("note", ""))
        return Response(AlertSerializer(self.get_object()).data)
