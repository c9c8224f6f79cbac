"""REST resources of people: projects, their members, and invitations to them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform import selectors, services
from r1platform.access import require_role, role_in
from r1platform.api import ProjectViewSet
from r1platform.invitations import DAYS, SPENT, invitation_create, invitation_list, invitation_revoke, invitation_use
from r1platform.models import ApiKey, Invitation, Membership, Project, Role


class ProjectSerializer(serializers.ModelSerializer[Project]):
    role = serializers.SerializerMethodField()

    class Meta:
        model = Project
        fields = ["id", "name", "slug", "description", "role", "created_at", "archived_at"]
        read_only_fields = ["slug", "created_at", "archived_at"]

    @extend_schema_field(serializers.ChoiceField(choices=Role.choices))
    def get_role(self, project: Any) -> str | None:
        return getattr(project, "my_role", None) or role_in(self.context["request"].user, project)


class MemberSerializer(serializers.ModelSerializer[Membership]):
    username = serializers.CharField(source="user.username", max_length=150)

    class Meta:
        model = Membership
        fields = ["username", "role", "created_at"]
        read_only_fields = ["created_at"]


class InvitationSerializer(serializers.ModelSerializer[Invitation]):
    created_by = serializers.CharField(source="created_by.username", read_only=True)

    class Meta:
        model = Invitation
        fields = ["id", "role", "note", "created_by", "created_at", "expires_at"]
        read_only_fields = fields


class NewInvitationSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=Role.choices, default=Role.EDITOR)
    days = serializers.ChoiceField(choices=[(days, f"{days} days") for days in DAYS], default=7)
    note = serializers.CharField(max_length=120, required=False, allow_blank=True, help_text="For whom it is.")


class MadeInvitationSerializer(InvitationSerializer):
    url = serializers.CharField(read_only=True, help_text="The link; it is shown only now.")

    class Meta(InvitationSerializer.Meta):
        fields = [*InvitationSerializer.Meta.fields, "url"]


class TokenSerializer(serializers.Serializer[Any]):
    token = serializers.CharField(max_length=200, help_text="The last part of the link.")


class Projects(mixins.ListModelMixin, mixins.RetrieveModelMixin, mixins.UpdateModelMixin, ProjectViewSet):
    """Projects of the user."""

    queryset = Project.objects.all()
    serializer_class = ProjectSerializer
    project_path = ""
    write_role = Role.OWNER
    even_archived = True
    shown_once = ("invite",)
    filterset_fields = {"archived_at": ["isnull"], "slug": ["exact"]}
    http_method_names = ["get", "post", "patch", "put", "delete", "head", "options"]

    def get_queryset(self) -> QuerySet[Project]:
        return selectors.project_list(user=_user(self.request))

    def create(self, request: Request) -> Response:
        """A new project; the caller owns it."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        assert isinstance(request.user, User)
        self._require_unbound(request)
        project = services.project_create(user=request.user, **serializer.validated_data)
        return Response(self.get_serializer(project).data, status=status.HTTP_201_CREATED)

    def perform_update(self, serializer: Any) -> None:
        services.project_update(project=serializer.instance, by=_user(self.request), **serializer.validated_data)

    @extend_schema(request=None, responses=ProjectSerializer)
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, pk: str) -> Response:
        """Only to be looked at from now on; what runs goes on to its end."""
        services.project_archive(project=self.get_object(), by=_user(request))
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(request=None, responses=ProjectSerializer)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, pk: str) -> Response:
        """Back in use."""
        services.project_restore(project=self.get_object(), by=_user(request))
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(responses=InvitationSerializer(many=True))
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def invitations(self, request: Request, pk: str) -> Response:
        """Links that can still be used; for owners."""
        project = self.get_object()
        require_role(_user(request), project, Role.OWNER, even_archived=True)
        return Response(InvitationSerializer(invitation_list(project=project), many=True).data)

    @extend_schema(request=NewInvitationSerializer, responses={201: MadeInvitationSerializer})
    @invitations.mapping.post
    def invite(self, request: Request, pk: str) -> Response:
        """A link that makes whoever opens it a member, once; it is in this answer and nowhere else."""
        project, serializer = self.get_object(), NewInvitationSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        values = {**serializer.validated_data, "role": Role(serializer.validated_data["role"])}
        made, path = invitation_create(project=project, by=_user(request), **values)
        data = {**InvitationSerializer(made).data, "url": request.build_absolute_uri(path)}
        return Response(data, status=status.HTTP_201_CREATED)

    @extend_schema(responses={204: None})
    @action(detail=True, methods=["delete"], url_path=r"invitations/(?P<invitation_id>\d{1,17})")
    def invitation_delete(self, request: Request, pk: str, invitation_id: str) -> Response:
        """Ends a link that nobody has used."""
        found = get_object_or_404(invitation_list(project=self.get_object()), pk=int(invitation_id))
        invitation_revoke(invitation=found, by=_user(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=TokenSerializer, responses=ProjectSerializer)
    @action(detail=False, methods=["post"])
    def join(self, request: Request) -> Response:
        """Uses an invitation up: the caller becomes a member."""
        serializer = TokenSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        self._require_unbound(request)
        project = invitation_use(user=_user(request), token=serializer.validated_data["token"])
        if project is None:
            raise serializers.ValidationError({"token": SPENT})
        return Response(self.get_serializer(self.get_queryset().get(pk=project.pk)).data)

    def _require_unbound(self, request: Request) -> None:
        if isinstance(request.auth, ApiKey) and request.auth.project_id is not None:
            self.permission_denied(request, message="This key is bound to one project and reaches no others.")

    @extend_schema(responses=MemberSerializer(many=True))
    @action(detail=True, url_path="members", pagination_class=None, filterset_fields=None)
    def members(self, request: Request, pk: str) -> Response:
        """Who may see the project."""
        members = selectors.project_members(project=self.get_object())
        return Response(MemberSerializer(members, many=True).data)

    @extend_schema(request=MemberSerializer, responses=MemberSerializer)
    @members.mapping.put
    def member_put(self, request: Request, pk: str) -> Response:
        """Gives a user a role."""
        serializer = MemberSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        project = self.get_object()
        user = self._member(serializer.validated_data["user"]["username"])
        role = Role(serializer.validated_data.get("role", Role.VIEWER))
        member = services.member_set(project=project, user=user, role=role, by=_user(request))
        return Response(MemberSerializer(member).data)

    @extend_schema(responses={204: None})
    @action(detail=True, methods=["delete"], url_path="members/(?P<username>[^/]+)")
    def member_delete(self, request: Request, pk: str, username: str) -> Response:
        """Takes a user's membership away; sockets of that user close within 15 seconds."""
        project = self.get_object()
        member = get_object_or_404(project.memberships.select_related("user"), user__username=username)
        services.member_set(project=project, user=member.user, role=None, by=_user(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _member(self, username: str) -> User:
        found = User.objects.filter(username=username, is_active=True).first()
        if found is None:
            raise serializers.ValidationError({"username": f"There is no active user “{username}”."})
        return found


def _user(request: Request) -> User:
    assert isinstance(request.user, User), "the permission class lets nobody else through"
    return request.user
