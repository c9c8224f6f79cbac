"""REST resources of the plumbing: who I am, nodes and devices, API keys, audit. Projects are in `project_resources`."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

from r1platform import selectors, services
from r1platform.access import for_user, project_named
from r1platform.api import CursorPaging, ScopePermission, SessionOnly
from r1platform.keys import MOST, SCOPES, api_key_create, api_key_limit, api_key_revoke
from r1platform.models import ApiKey, AuditEntry, Device, Node, Project
from r1platform.project_resources import Projects, ProjectSerializer
from r1platform.webhook_api import Webhooks


class ByName(CursorPaging):
    ordering = ("name", "id")


class Oldest(CursorPaging):
    ordering = "id"


class DeviceSerializer(serializers.ModelSerializer[Device]):
    node = serializers.CharField(source="node.name", read_only=True)
    held_by = serializers.SerializerMethodField()

    class Meta:
        model = Device
        fields = ["id", "node", "kind", "index", "name", "memory_bytes", "uuid", "held_by"]

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_held_by(self, device: Any) -> str | None:
        leases = getattr(device, "live_leases", [])
        return leases[0].holder if leases else None


class NodeSerializer(serializers.ModelSerializer[Node]):
    is_up = serializers.BooleanField(read_only=True)
    devices = DeviceSerializer(many=True, read_only=True)

    class Meta:
        model = Node
        fields = ["id", "name", "address", "hardware", "draining", "is_up", "heartbeat_at", "devices"]
        read_only_fields = ["name", "address", "hardware", "heartbeat_at"]


class Nodes(mixins.ListModelMixin, mixins.RetrieveModelMixin, mixins.UpdateModelMixin, viewsets.GenericViewSet[Node]):
    """Machines; every user may look, administrators may drain."""

    queryset = Node.objects.none()
    serializer_class = NodeSerializer
    pagination_class = ByName
    http_method_names = ["get", "patch", "head", "options"]

    def get_queryset(self) -> QuerySet[Node]:
        return selectors.node_list()

    def perform_update(self, serializer: Any) -> None:
        if not _user(self.request).is_staff:
            self.permission_denied(self.request, message="Only administrators drain a node.")
        draining = serializer.validated_data.get("draining", serializer.instance.draining)
        services.node_drain(node=serializer.instance, draining=draining, by=_user(self.request))


class Devices(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Device]):
    """Devices and who holds them."""

    queryset = Device.objects.none()
    serializer_class = DeviceSerializer
    pagination_class = Oldest
    filterset_fields = ["kind", "node__name"]

    def get_queryset(self) -> QuerySet[Device]:
        return selectors.device_list()


class ProjectField(serializers.SlugRelatedField[Project]):
    """A project of the caller, by slug or by id."""

    def to_internal_value(self, data: Any) -> Project:
        rows = self.get_queryset()
        found = project_named(rows.all(), str(data)) if rows is not None else None
        if found is None:
            self.fail("does_not_exist", slug_name=self.slug_field, value=str(data)[:80])
        return found


LIMITS: dict[str, dict[str, Any]] = {
    name: {"min_value": Decimal("0.01") if name == "dollars_per_month" else 1, "max_value": most, "help_text": "Empty: no limit."}
    for name, most in MOST.items()
}


class ApiKeySerializer(serializers.ModelSerializer[ApiKey]):
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPES), allow_empty=False)
    project = ProjectField(slug_field="slug", queryset=Project.objects.none(), required=False, allow_null=True)

    class Meta:
        model = ApiKey
        fields = ["id", "name", "prefix", "scopes", "project", "created_at", "expires_at", "revoked_at", "last_used_at", *MOST]
        read_only_fields = ["prefix", "created_at", "revoked_at", "last_used_at"]
        extra_kwargs = LIMITS

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        request = self.context.get("request")
        if request is not None and isinstance(request.user, User):
            project: Any = fields["project"]
            project.queryset = for_user(Project.objects.all(), request.user, path="")
        return fields


class NewApiKeySerializer(ApiKeySerializer):
    key = serializers.CharField(read_only=True, help_text="The whole key; it is shown only now.")

    class Meta(ApiKeySerializer.Meta):
        fields = [*ApiKeySerializer.Meta.fields, "key"]


class KeyLimitsSerializer(serializers.ModelSerializer[ApiKey]):
    """What of a key can change."""

    class Meta:
        model = ApiKey
        fields = list(MOST)
        extra_kwargs = LIMITS


class ApiKeys(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[ApiKey]):
    """The user's own keys; managed with a session, never with a key."""

    queryset = ApiKey.objects.none()
    serializer_class = ApiKeySerializer
    permission_classes = [SessionOnly]
    shown_once = ("create",)

    def get_queryset(self) -> QuerySet[ApiKey]:
        if getattr(self, "swagger_fake_view", False):
            return ApiKey.objects.none()
        return selectors.api_key_list(user=_user(self.request))

    @extend_schema(responses={201: NewApiKeySerializer})
    def create(self, request: Request) -> Response:
        """A new key; its text is in this answer and nowhere else."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        key, secret = api_key_create(user=_user(request), **serializer.validated_data)
        key.refresh_from_db()
        key.key = secret  # type: ignore[attr-defined]
        data = NewApiKeySerializer(key, context=self.get_serializer_context()).data
        return Response(data, status=status.HTTP_201_CREATED)

    @extend_schema(request=KeyLimitsSerializer, responses=ApiKeySerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Changes limits of the key; they hold within a second."""
        key = self.get_object()
        serializer = KeyLimitsSerializer(data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        api_key_limit(key=key, by=_user(request), **serializer.validated_data)
        return Response(self.get_serializer(key).data)

    def destroy(self, request: Request, pk: str) -> Response:
        """Revokes the key."""
        api_key_revoke(key=self.get_object(), by=_user(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class AuditSerializer(serializers.ModelSerializer[AuditEntry]):
    user = serializers.CharField(source="user.username", allow_null=True, default=None, read_only=True)
    project = serializers.CharField(source="project.slug", allow_null=True, default=None, read_only=True)

    class Meta:
        model = AuditEntry
        fields = ["id", "created_at", "user", "project", "action", "target", "detail"]


class Audit(mixins.ListModelMixin, viewsets.GenericViewSet[AuditEntry]):
    """Who did what; for owners of the project."""

    queryset = AuditEntry.objects.none()
    serializer_class = AuditSerializer
    filterset_fields = {
        "project__slug": ["exact"], "action": ["exact", "startswith"], "user__username": ["exact"], "target": ["exact"],
    }

    def get_queryset(self) -> QuerySet[AuditEntry]:
        return selectors.audit_list(user=_user(self.request))


@extend_schema_serializer(many=False)
class MeSerializer(serializers.Serializer[Any]):
    username = serializers.CharField()
    is_staff = serializers.BooleanField()
    projects = ProjectSerializer(many=True)


class Me(viewsets.ViewSet):
    """The user of this session or key."""

    permission_classes = [ScopePermission]

    @extend_schema(responses=MeSerializer)
    def list(self, request: Request) -> Response:
        user = _user(request)
        projects = selectors.project_list(user=user)
        answer = {"username": user.username, "is_staff": user.is_staff, "projects": projects}
        return Response(MeSerializer(answer, context={"request": request}).data)


def register(router: DefaultRouter) -> None:
    """Adds the resources of this file."""
    router.register("me", Me, basename="me")
    router.register("projects", Projects, basename="project")
    router.register("nodes", Nodes, basename="node")
    router.register("devices", Devices, basename="device")
    router.register("api-keys", ApiKeys, basename="api-key")
    router.register("audit", Audit, basename="audit")
    router.register("webhooks", Webhooks, basename="webhook")


def _user(request: Request) -> User:
    assert isinstance(request.user, User), "the permission class lets nobody else through"
    return request.user
