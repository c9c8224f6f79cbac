"""`/api/v1/conversations/`: the user's own chats, their messages, and what can be done with an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Prefetch, QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, status
from rest_framework.decorators import action
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform.api import ProjectViewSet, wanted_project
from r1platform.models import ApiKey, Role
from serving_app import selectors, services
from serving_app.api.judgements import ChoiceSerializer, JudgementSerializer, RatingSerializer, RewriteSerializer
from serving_app.api.serializers import (
    ContinueSerializer,
    ConversationDetailSerializer,
    ConversationSerializer,
    EditSerializer,
    MessageSerializer,
    NewMessageSerializer,
    SaidSerializer,
    ShareSerializer,
    TokenSerializer,
    UnshareSerializer,
)
from serving_app.gateway.auth import SCOPE as INFERENCE
from serving_app.gateway.errors import GatewayError
from serving_app.gateway.limits import LIMITS, Slot, terms_of
from serving_app.gateway.spending import account_open
from serving_app.models import Conversation, Message

_MESSAGE = OpenApiParameter("message_id", int, OpenApiParameter.PATH)
_MESSAGE_PATH = r"messages/(?P<message_id>\d{1,17})"


class Conversations(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """The caller's own conversations; those of others do not exist here, whatever the role."""

    queryset = Conversation.objects.all()
    serializer_class = ConversationSerializer
    filterset_fields = ["project", "deployment"]
    write_role = Role.VIEWER
    more_scopes = {"send": INFERENCE, "go_on": INFERENCE, "regenerate": INFERENCE, "edit": INFERENCE}
    lookup_value_regex = r"\d{1,17}"

    def get_queryset(self) -> QuerySet[Conversation]:
        found = super().get_queryset().filter(user=self.request.user.pk).select_related("project", "deployment")
        return found.prefetch_related(Prefetch("messages", Message.objects.defer("tokens"))) if self.action == "retrieve" else found

    def get_serializer_class(self) -> Any:
        return ConversationDetailSerializer if self.action == "retrieve" else ConversationSerializer

    @extend_schema(responses={201: ConversationSerializer})
    def create(self, request: Request) -> Response:
        """An empty conversation."""
        values = self._values(ConversationSerializer, request)
        project = wanted_project(request, role=Role.VIEWER)
        made = services.conversation_create(project=project, user=_user(request), **values)
        return Response(ConversationSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(responses=ConversationSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Changes title, model, system prompt or parameters."""
        conversation = self.get_object()
        serializer = self.get_serializer(conversation, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        values = dict(serializer.validated_data)
        changed = services.conversation_update(conversation=conversation, user=_user(request), **values)
        return Response(ConversationSerializer(changed).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Deletes it with its messages."""
        services.conversation_delete(conversation=self.get_object(), user=_user(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(responses=MessageSerializer(many=True))
    @action(detail=True, filterset_fields=None, pagination_class=None)
    def messages(self, request: Request, pk: str) -> Response:
        """All messages in the order they were written; `parent` makes the tree."""
        return Response(MessageSerializer(self.get_object().messages.defer("tokens").order_by("pk"), many=True).data)

    @extend_schema(request=NewMessageSerializer, responses={201: SaidSerializer})
    @messages.mapping.post
    def send(self, request: Request, pk: str) -> Response:
        """Says something; the answer is written by the server and read from here or from the socket."""
        conversation, values = self.get_object(), self._values(NewMessageSerializer, request)
        parent = self._message(conversation, values["parent"]) if values.get("parent") is not None else None
        with counted(request, times=services.num_columns(conversation)) as slots:
            said = services.message_send(
                conversation=conversation, user=_user(request), content=values["content"], parent=parent, slots=slots
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
        times = 1 if message.role == "assistant" else services.num_columns(message.conversation)
        with counted(request, times=times) as slots:
            made = services.message_regenerate(message=message, user=_user(request), slots=slots)
        return Response(MessageSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(parameters=[_MESSAGE], request=ContinueSerializer, responses={201: MessageSerializer})
    @action(detail=True, methods=["post"], url_path=f"{_MESSAGE_PATH}/continue")
    def go_on(self, request: Request, pk: str, message_id: str) -> Response:
        """Another answer that begins as this one does, whole or up to another token at one of its places."""
        message = self._message(self.get_object(), int(message_id))
        values = self._values(ContinueSerializer, request)
        with counted(request) as slots:
            made = services.message_continue(message=message, user=_user(request), slots=slots, **values)
        return Response(MessageSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(parameters=[_MESSAGE], responses=TokenSerializer(many=True))
    @action(detail=True, url_path=f"{_MESSAGE_PATH}/tokens", filterset_fields=None, pagination_class=None)
    def tokens(self, request: Request, pk: str, message_id: str) -> Response:
        """The tokens of an answer with their probabilities; empty when they were not asked for (`token_logprobs`)."""
        message = self._message(self.get_object(), int(message_id))
        return Response(TokenSerializer(selectors.message_tokens(message), many=True).data)

    @extend_schema(parameters=[_MESSAGE], request=EditSerializer, responses={201: SaidSerializer})
    @action(detail=True, methods=["post"], url_path=f"{_MESSAGE_PATH}/edit")
    def edit(self, request: Request, pk: str, message_id: str) -> Response:
        """Another wording beside a message of the user, with its own answer."""
        message = self._message(self.get_object(), int(message_id))
        values = self._values(EditSerializer, request)
        with counted(request, times=services.num_columns(message.conversation)) as slots:
            said = services.message_edit(message=message, user=_user(request), slots=slots, **values)
        return self._said(*said)

    @extend_schema(parameters=[_MESSAGE], request=RatingSerializer, responses={200: JudgementSerializer, 204: None})
    @action(detail=True, methods=["post"], url_path=f"{_MESSAGE_PATH}/rate")
    def rate(self, request: Request, pk: str, message_id: str) -> Response:
        """Says that an answer is good or bad, and why."""
        message = self._message(self.get_object(), int(message_id))
        said = services.message_rate(message=message, user=_user(request), **self._values(RatingSerializer, request))
        return Response(JudgementSerializer(said).data) if said else Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(parameters=[_MESSAGE], request=RewriteSerializer, responses={201: MessageSerializer})
    @action(detail=True, methods=["post"], url_path=f"{_MESSAGE_PATH}/rewrite")
    def rewrite(self, request: Request, pk: str, message_id: str) -> Response:
        """An answer of a person in place of this one; the pair waits for review."""
        message = self._message(self.get_object(), int(message_id))
        made = services.message_rewrite(message=message, user=_user(request), **self._values(RewriteSerializer, request))
        return Response(MessageSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(parameters=[_MESSAGE], request=ChoiceSerializer, responses={201: JudgementSerializer(many=True)})
    @action(detail=True, methods=["post"], url_path=f"{_MESSAGE_PATH}/prefer")
    def prefer(self, request: Request, pk: str, message_id: str) -> Response:
        """Says that an answer is better than others to the same message, or that all are alike."""
        conversation, values = self.get_object(), self._values(ChoiceSerializer, request)
        over = [self._message(conversation, other) for other in values.pop("over")]
        said = services.message_prefer(
            message=self._message(conversation, int(message_id)), user=_user(request), over=over, **values
        )
        return Response(JudgementSerializer(said, many=True).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=ShareSerializer, responses={201: ShareSerializer})
    @action(detail=True, methods=["post"])
    def share(self, request: Request, pk: str) -> Response:
        """A link by which members of the project read the branch that ends in `leaf`, by default the newest."""
        conversation, values = self.get_object(), self._values(ShareSerializer, request)
        leaf = self._message(conversation, values["leaf_id"]) if values.get("leaf_id") is not None else None
        made = services.conversation_share(conversation=conversation, user=_user(request), leaf=leaf)
        return Response(ShareSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(responses=ShareSerializer(many=True))
    @action(detail=True, filterset_fields=None, pagination_class=None)
    def shares(self, request: Request, pk: str) -> Response:
        """The links that are open."""
        return Response(ShareSerializer(self.get_object().shares.filter(revoked_at=None), many=True).data)

    @extend_schema(request=UnshareSerializer, responses={204: None})
    @action(detail=True, methods=["post"])
    def unshare(self, request: Request, pk: str) -> Response:
        """Ends a link."""
        token = self._values(UnshareSerializer, request)["token"]
        share = get_object_or_404(self.get_object().shares.select_related("conversation__project"), token=token)
        services.conversation_unshare(share=share, user=_user(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _message(self, conversation: Conversation, message_id: int) -> Message:
        there = conversation.messages.select_related("conversation__project", "parent", "edit_of", "deployment")
        return get_object_or_404(there, pk=message_id)

    def _said(self, user: Message, assistant: Message) -> Response:
        beside = list(user.children.exclude(pk=assistant.pk).order_by("pk")) if assistant.column is not None else []
        data = {
            "user": MessageSerializer(user).data,
            "assistant": MessageSerializer(assistant).data,
            "beside": MessageSerializer(beside, many=True).data,
        }
        return Response(data, status=status.HTTP_201_CREATED)

    def _values(self, kind: Any, request: Request) -> dict[str, Any]:
        serializer = kind(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)


@contextmanager
def counted(request: Request, *, times: int = 1) -> Iterator[list[Slot] | None]:
    """A place in the limits of the caller's API key for each of `times` answers; `generation` counts each out at its end.

    Raises Throttled when the key may not ask for so many now. A browser's session has no key and no such limit.
    """
    key = request.auth
    if not isinstance(key, ApiKey):
        yield None
        return
    account_open(key.pk)
    slots: list[Slot] = []
    try:
        while len(slots) < times:
            slots.append(LIMITS.enter(key.pk, terms_of(key)))
        yield list(slots)
    except BaseException as error:
        for slot in slots:
            slot.leave()
        if isinstance(error, GatewayError):
            raise Throttled(wait=error.retry_after, detail=error.message) from None
        raise


def _user(request: Request) -> User:
    assert isinstance(request.user, User), "the permission class lets nobody else through"
    return request.user
