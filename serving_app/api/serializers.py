"""How deployments and conversations look as JSON, and what a request to change them may hold."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from serving_app.models import Conversation, ConversationShare, Deployment, DeploymentRevision, Message, Replica
from training_app.models import Checkpoint

MAX_ID = (1 << 63) - 1
"""Largest number that an id can be."""


class RevisionSerializer(serializers.ModelSerializer[DeploymentRevision]):
    run = serializers.IntegerField(source="checkpoint.run_id", read_only=True)
    step = serializers.IntegerField(source="checkpoint.step", read_only=True)

    class Meta:
        model = DeploymentRevision
        fields = ["id", "number", "checkpoint", "run", "step", "engine", "engine_config", "created_at"]
        read_only_fields = fields


class ReplicaSerializer(serializers.ModelSerializer[Replica]):
    """A replica without its address and key: those are between gateway and engine."""

    revision = serializers.IntegerField(source="revision.number", read_only=True)
    node = serializers.CharField(source="node.name", allow_null=True, default=None, read_only=True)

    class Meta:
        model = Replica
        fields = [
            "id", "revision", "number", "state", "state_reason", "stop_wanted", "node", "metrics", "heartbeat_at",
            "created_at", "ready_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


class DeploymentSerializer(serializers.ModelSerializer[Deployment]):
    revision = serializers.SerializerMethodField()

    class Meta:
        model = Deployment
        fields = [
            "id", "project", "name", "description", "state", "state_reason", "desired_replicas", "revision",
            "created_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(RevisionSerializer(allow_null=True))
    def get_revision(self, deployment: Deployment) -> Any:
        """The newest revision."""
        revisions = list(deployment.revisions.all())
        return RevisionSerializer(revisions[0]).data if revisions else None


class CheckpointField(serializers.PrimaryKeyRelatedField[Checkpoint]):
    """A checkpoint of a project that the caller is a member of."""

    def get_queryset(self) -> Any:
        from r1platform.access import for_user

        request = self.context.get("request")
        if request is None:
            return Checkpoint.objects.none()
        found = for_user(Checkpoint.objects.all(), request.user, path="run__project")
        return found.select_related("run", "attempt")


class NewRevisionSerializer(serializers.Serializer[Any]):
    """What is not given stays as it was."""

    checkpoint = CheckpointField(queryset=Checkpoint.objects.none(), required=False)
    engine = serializers.CharField(max_length=40, required=False)
    engine_config = serializers.DictField(required=False)


class NewDeploymentSerializer(serializers.Serializer[Any]):
    """What a deployment begins with."""

    project = serializers.CharField(required=False, help_text="Id or slug.")
    name = serializers.CharField(max_length=80, help_text="The model's name in the gateway; unique.")
    checkpoint = CheckpointField(queryset=Checkpoint.objects.none())
    engine = serializers.CharField(max_length=40)
    engine_config = serializers.DictField(required=False, help_text="See GET engines/ for the schema.")
    replicas = serializers.IntegerField(required=False, default=1)
    description = serializers.CharField(required=False, allow_blank=True, max_length=2000)


class DeploymentPatchSerializer(serializers.Serializer[Any]):
    description = serializers.CharField(required=False, allow_blank=True, max_length=2000)
    replicas = serializers.IntegerField(required=False)


class StartSerializer(serializers.Serializer[Any]):
    replicas = serializers.IntegerField(required=False, help_text="By default as many as before it was stopped.")


class LogSerializer(serializers.Serializer[Any]):
    """A piece of an engine's output; ask again from `next_offset`."""

    text = serializers.CharField()
    next_offset = serializers.IntegerField()
    size = serializers.IntegerField()


class MessageSerializer(serializers.ModelSerializer[Message]):
    class Meta:
        model = Message
        fields = [
            "id", "parent", "role", "deployment", "column", "edit_of", "content", "reasoning", "state", "state_reason", "seq",
            "usage", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class NewMessageSerializer(serializers.Serializer[Any]):
    content = serializers.CharField(trim_whitespace=False)
    parent = serializers.IntegerField(  # type: ignore[assignment]
        required=False, allow_null=True, help_text="Where it is said; by default at the end."
    )


class ContinueSerializer(serializers.Serializer[Any]):
    """Where an answer goes on: at its end, or at a place of its tokens with another of the likeliest there."""

    token = serializers.IntegerField(required=False, min_value=0, help_text="Place of the token that is replaced.")
    choice = serializers.IntegerField(required=False, min_value=0, help_text="Number of the alternative; by default 0.")


class TokenSerializer(serializers.Serializer[Any]):
    """One token; `others` are number, text and probability of the likeliest others at its place."""

    place = serializers.IntegerField()
    text = serializers.CharField()
    probability = serializers.FloatField()
    others = serializers.ListField(child=serializers.ListField())


class EditSerializer(serializers.Serializer[Any]):
    content = serializers.CharField(trim_whitespace=False)


class ShareSerializer(serializers.ModelSerializer[ConversationShare]):
    """A link to read one branch; `path` is behind this server's address."""

    leaf = serializers.IntegerField(
        source="leaf_id", required=False, allow_null=True, help_text="The last message that is shown."
    )
    path = serializers.SerializerMethodField()

    class Meta:
        model = ConversationShare
        fields = ["leaf", "token", "path", "created_at"]
        read_only_fields = ["token", "created_at"]

    def get_path(self, share: ConversationShare) -> str:
        """Where it is read."""
        return reverse("conversation-shared", args=[share.token])


class UnshareSerializer(serializers.Serializer[Any]):
    token = serializers.CharField(max_length=40)


class SaidSerializer(serializers.Serializer[Any]):
    """What was said, the answer that is queued, and those that are queued beside it."""

    user = MessageSerializer()
    assistant = MessageSerializer()
    beside = MessageSerializer(many=True)


class ConversationSerializer(serializers.ModelSerializer[Conversation]):
    parameters = serializers.DictField(required=False)
    beside = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=MAX_ID), required=False, max_length=3,
        help_text="Ids of up to three more deployments that answer beside the first.",
    )  # fmt: skip

    class Meta:
        model = Conversation
        fields = ["id", "project", "deployment", "beside", "title", "system_prompt", "parameters", "created_at", "updated_at"]
        read_only_fields = ["project", "created_at", "updated_at"]


class ConversationDetailSerializer(ConversationSerializer):
    messages = MessageSerializer(many=True, read_only=True)

    class Meta(ConversationSerializer.Meta):
        fields = [*ConversationSerializer.Meta.fields, "messages"]
