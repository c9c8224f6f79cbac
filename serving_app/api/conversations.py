"""`/api/v1/conversations/`: the user's own chats, their messages, and what can be done with an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, status
from rest_framework.decorators import action
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.response import Response

from model_core.errors import ConfigError
from r1platform.access import for_user
from r1platform.api import CursorPaging, ProjectViewSet, wanted_project
from r1platform.models import ApiKey, Role
from serving_app import services
from serving_app.api.serializers import (
    ConversationDetailSerializer,
    ConversationSerializer,
    EditSerializer,
    MessageSerializer,
    NewMessageSerializer,
    SaidSerializer,
)
from serving_app.gateway.auth import SCOPE as INFERENCE
from serving_app.gateway.errors import GatewayError
from serving_app.gateway.limits import LIMITS
from serving_app.models import Conversation, Deployment, Message

_MESSAGE = OpenApiParameter("message_id", int, OpenApiParameter.PATH)
_MESSAGE_PATH = r"messages/(?P<message_id>\d{1,17})"


class Conversations(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """The caller's own conversations; those of others do not exist here, whatever the role."""

    queryset = Conversation.objects.all()
    serializer_class = ConversationSerializer
    filterset_fields = ["project", "deployment"]
    write_role = Role.VIEWER
    more_scopes = {"send": INFERENCE, "regenerate": INFERENCE, "edit": INFERENCE}
    lookup_value_regex = r"\d{1,17}"

    def get_queryset(self) -> QuerySet[Conversation]:
        return super().get_queryset().filter(user=self.request.user.pk).select_related("project", "deployment")

    def get_serializer_class(self) -> Any:
        return ConversationDetailSerializer if self.action == "retrieve" else ConversationSerializer

    @extend_schema(responses={201: ConversationSerializer})
    def create(self, request: Request) -> Response:
        """An empty conversation."""
        values = self._values(ConversationSerializer, request)
        project = wanted_project(request, role=Role.VIEWER)
        self._own_deployment(request, values)
        made = services.conversation_create(project=project, user=_user(request), **values)
        return Response(ConversationSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(responses=ConversationSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Changes title, model, system prompt or parameters."""
        conversation = self.get_object()
        serializer = ConversationSerializer(conversation, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        values = dict(serializer.validated_data)
        self._own_deployment(request, values)
        changed = services.conversation_update(conversation=conversation, user=_user(request), **values)
        return Response(ConversationSerializer(changed).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Deletes it with its messages."""
        services.conversation_delete(conversation=self.get_object(), user=_user(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(responses=MessageSerializer(many=True))
    @action(detail=True, filterset_fields=None, pagination_class=CursorPaging)
    def messages(self, request: Request, pk: str) -> Response:
        """All messages in the order they were written; `parent` makes the tree."""
        return Response(MessageSerializer(self.get_object().messages.order_by("pk"), many=True).data)

    @extend_schema(request=NewMessageSerializer, responses={201: SaidSerializer})
    @messages.mapping.post
    def send(self, request: Request, pk: str) -> Response:
        """Says something; the answer is written by the server and read from here or from the socket."""
        conversation, values = self.get_object(), self._values(NewMessageSerializer, request)
        parent = self._message(conversation, values["parent"]) if values.get("parent") is not None else None
        with counted(request) as key_id:
            said = services.message_send(
                conversation=conversation, user=_user(request), content=values["content"], parent=parent, key_id=key_id
            )
        return self._said(*said)

    @extend_schema(parameters=[_MESSAGE], request=None, responses=MessageSerializer)
    @action(detail=True, methods=["post"], url_path=f"{_MESSAGE_PATH}/stop")
    def stop(self, request: Request, pk: str, message_id: str) -> Response:
        """Ends an answer and keeps what is there."""
        message = self._message(self.get_object(), int(message_id))
        services.message_stop(message=message, user=_user(request))
        message.refresh_from_db()
        return Response(MessageSerializer(message).data)

    @extend_schema(parameters=[_MESSAGE], request=None, responses={201: MessageSerializer})
    @action(detail=True, methods=["post"], url_path=f"{_MESSAGE_PATH}/regenerate")
    def regenerate(self, request: Request, pk: str, message_id: str) -> Response:
        """Another answer beside this one."""
        message = self._message(self.get_object(), int(message_id))
        with counted(request) as key_id:
            made = services.message_regenerate(message=message, user=_user(request), key_id=key_id)
        return Response(MessageSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(parameters=[_MESSAGE], request=EditSerializer, responses={201: SaidSerializer})
    @action(detail=True, methods=["post"], url_path=f"{_MESSAGE_PATH}/edit")
    def edit(self, request: Request, pk: str, message_id: str) -> Response:
        """Another wording beside a message of the user, with its own answer."""
        message = self._message(self.get_object(), int(message_id))
        values = self._values(EditSerializer, request)
        with counted(request) as key_id:
            said = services.message_edit(message=message, user=_user(request), key_id=key_id, **values)
        return self._said(*said)

    def _own_deployment(self, request: Request, values: dict[str, Any]) -> None:
        """A deployment of a project that the caller cannot see is answered as one that does not exist."""
        deployment = values.get("deployment")
        if (
            deployment is not None
            and not for_user(Deployment.objects.filter(pk=deployment.pk), _user(request)).exists()
        ):
            raise ConfigError("There is no such deployment. Choose another one.", field="deployment")

    def _message(self, conversation: Conversation, message_id: int) -> Message:
        return get_object_or_404(conversation.messages.select_related("conversation", "parent"), pk=message_id)

    def _said(self, user: Message, assistant: Message) -> Response:
        data = {"user": MessageSerializer(user).data, "assistant": MessageSerializer(assistant).data}
        return Response(data, status=status.HTTP_201_CREATED)

    def _values(self, kind: Any, request: Request) -> dict[str, Any]:
        serializer = kind(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)


@contextmanager
def counted(request: Request) -> Iterator[int | None]:
    """The API key that an answer is booked on, counted into its limits; `generation` counts it out when the answer ends.

    Raises Throttled when the key may not ask for more now. A browser's session has no key and no such limit.
    """
    if not isinstance(request.auth, ApiKey):
        yield None
        return
    try:
        LIMITS.enter(request.auth.pk)
    except GatewayError as error:
        raise Throttled(wait=error.retry_after, detail=error.message) from None
    try:
        yield request.auth.pk
    except BaseException:
        LIMITS.leave(request.auth.pk)
        raise


def _user(request: Request) -> User:
    assert isinstance(request.user, User), "the permission class lets nobody else through"
    return request.user
