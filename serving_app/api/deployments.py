"""`/api/v1/deployments/`: create, revise, shift, roll back, start, stop, scale, delete; history, replicas and their logs."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db.models import Prefetch, QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, status
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform.api import ProjectViewSet, wanted_project
from serving_app import selectors, services
from serving_app.api.prices import Priced
from serving_app.api.serializers import (
    DeploymentPatchSerializer,
    DeploymentSerializer,
    HistorySerializer,
    LogSerializer,
    NewDeploymentSerializer,
    NewRevisionSerializer,
    ReplicaSerializer,
    RevisionSerializer,
    RollbackSerializer,
    ShiftSerializer,
    StartSerializer,
)
from serving_app.models import Deployment, DeploymentRevision, Replica

MAX_OFFSET = 1 << 53


class Deployments(Priced, mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Models that the gateway answers to."""

    queryset = Deployment.objects.filter(deleted_at=None)
    serializer_class = DeploymentSerializer
    filterset_fields = ["project", "state", "name"]
    lookup_value_regex = r"\d{1,17}"

    def get_queryset(self) -> QuerySet[Deployment]:
        revisions = DeploymentRevision.objects.select_related("checkpoint").order_by("-number")
        return super().get_queryset().select_related("project").prefetch_related(Prefetch("revisions", revisions))

    @extend_schema(request=NewDeploymentSerializer, responses={201: DeploymentSerializer})
    def create(self, request: Request) -> Response:
        """A deployment; it is on its way when this returns."""
        values = self._values(NewDeploymentSerializer, request)
        values.pop("project", None)
        made = services.deployment_create(project=wanted_project(request), user=_user(request), **values)
        return Response(DeploymentSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=DeploymentPatchSerializer, responses=DeploymentSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Changes the description, the number of replicas, or when it sleeps."""
        deployment, values = self.get_object(), self._values(DeploymentPatchSerializer, request)
        if "replicas" in values:
            services.deployment_scale(deployment=deployment, user=_user(request), replicas=values["replicas"])
        if "idle_seconds" in values:
            services.deployment_idle(deployment=deployment, user=_user(request), idle_seconds=values["idle_seconds"])
        if "description" in values:
            services.deployment_update(deployment=deployment, user=_user(request), description=values["description"])
        return self._now()

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Deletes it: the name is free at once, requests that run are finished, usage stays."""
        services.deployment_delete(deployment=self.get_object(), user=_user(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=None, responses=DeploymentSerializer)
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: str) -> Response:
        """Ends all replicas."""
        services.deployment_stop(deployment=self.get_object(), user=_user(request))
        return self._now()

    @extend_schema(request=StartSerializer, responses=DeploymentSerializer)
    @action(detail=True, methods=["post"])
    def start(self, request: Request, pk: str) -> Response:
        """Starts what is stopped, sleeps or has failed."""
        deployment, values = self.get_object(), self._values(StartSerializer, request)
        services.deployment_start(deployment=deployment, user=_user(request), **values)
        return self._now()

    @extend_schema(responses=RevisionSerializer(many=True))
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def revisions(self, request: Request, pk: str) -> Response:
        """Every revision, newest first."""
        return Response(RevisionSerializer(self.get_object().revisions.all(), many=True).data)

    @extend_schema(request=NewRevisionSerializer, responses={201: RevisionSerializer})
    @revisions.mapping.post
    def revise(self, request: Request, pk: str) -> Response:
        """A new revision, started beside the present one; it takes over as its plan says."""
        deployment, values = self.get_object(), self._values(NewRevisionSerializer, request)
        made = services.revision_create(deployment=deployment, user=_user(request), **values)
        made.refresh_from_db()
        return Response(RevisionSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=ShiftSerializer, responses=DeploymentSerializer)
    @action(detail=True, methods=["post"])
    def shift(self, request: Request, pk: str) -> Response:
        """Gives the revision that takes over another share of the requests."""
        deployment, values = self.get_object(), self._values(ShiftSerializer, request)
        number = values.pop("revision")
        services.revision_shift(deployment=deployment, user=_user(request), number=number, **values)
        return self._now()

    @extend_schema(request=RollbackSerializer, responses=DeploymentSerializer)
    @action(detail=True, methods=["post"])
    def rollback(self, request: Request, pk: str) -> Response:
        """Takes back the revision that takes over, or goes back to an earlier one."""
        deployment, values = self.get_object(), self._values(RollbackSerializer, request)
        number = values.pop("revision", None)
        services.revision_rollback(deployment=deployment, user=_user(request), number=number, **values)
        return self._now()

    @extend_schema(responses=HistorySerializer(many=True))
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def history(self, request: Request, pk: str) -> Response:
        """The last moves of the deployment and its revisions, newest first, with who and why."""
        return Response(HistorySerializer(selectors.deployment_history(self.get_object()), many=True).data)

    @extend_schema(responses=ReplicaSerializer(many=True))
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def replicas(self, request: Request, pk: str) -> Response:
        """The replicas, the living ones first."""
        rows = selectors.deployment_detail(deployment=self.get_object())["replicas"]
        return Response(ReplicaSerializer([row["replica"] for row in rows], many=True).data)

    @extend_schema(
        parameters=[
            OpenApiParameter("replica_id", int, OpenApiParameter.PATH),
            OpenApiParameter("offset", int, description="Where to read on; by default the newest part."),
        ],
        responses=LogSerializer,
    )
    @action(
        detail=True, url_path=r"replicas/(?P<replica_id>\d{1,17})/log", pagination_class=None, filterset_fields=None
    )
    def replica_log(self, request: Request, pk: str, replica_id: str) -> Response:
        """What the engine has printed."""
        replica = get_object_or_404(Replica, pk=int(replica_id), revision__deployment=self.get_object())
        return Response(selectors.replica_log(replica, offset=_offset(request)))

    def _values(self, kind: Any, request: Request) -> dict[str, Any]:
        serializer = kind(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def _now(self) -> Response:
        return Response(DeploymentSerializer(self.get_object()).data)


def _offset(request: Request) -> int | None:
    given = request.query_params.get("offset", "")
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 17 and int(given) < MAX_OFFSET):
        raise ValidationError({"offset": f"“{given[:40]}” is not a number of bytes."})
    return int(given)


def _user(request: Request) -> User:
    assert isinstance(request.user, User), "the permission class lets nobody else through"
    return request.user
