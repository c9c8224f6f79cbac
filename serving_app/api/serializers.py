"""How deployments and conversations look as JSON, and what a request to change them may hold."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from r1platform.access import for_user
from serving_app import selectors
from serving_app.models import Conversation, ConversationShare, Deployment, DeploymentRevision, ImportedModel, Message, Replica
from serving_app.shifting import measured
from serving_app.states import REVISION_ON_ITS_WAY, RevisionState
from training_app.api.fields import CheckpointField
from training_app.models import Checkpoint

IDLE_HELP = "Seconds without a request after which it sleeps and holds no device, until the next request starts it; 0: never."
MAX_ID = (1 << 63) - 1
"""Largest number that an id can be."""


class EvidenceSerializer(serializers.Serializer[Any]):
    """What a revision has answered since its share was last changed; an error is a status above 500."""

    num_healthy = serializers.IntegerField()
    num_errors = serializers.IntegerField()
    ttft_seconds = serializers.FloatField(allow_null=True)
    seconds = serializers.FloatField()


class RevisionSerializer(serializers.ModelSerializer[DeploymentRevision]):
    run = serializers.IntegerField(source="checkpoint.run_id", allow_null=True, default=None, read_only=True)
    step = serializers.IntegerField(source="checkpoint.step", allow_null=True, default=None, read_only=True)
    measured = serializers.SerializerMethodField()

    class Meta:
        model = DeploymentRevision
        fields = [
            "id", "number", "checkpoint", "run", "step", "imported_model", "engine", "engine_config", "state", "state_reason",
            "share", "plan", "measured", "created_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(EvidenceSerializer(allow_null=True))
    def get_measured(self, revision: DeploymentRevision) -> Any:
        """Of a revision that takes over."""
        return EvidenceSerializer(measured(revision)).data if revision.state == RevisionState.SHIFTING else None


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
    coming = serializers.SerializerMethodField()

    class Meta:
        model = Deployment
        fields = [
            "id", "project", "name", "description", "state", "state_reason", "desired_replicas", "idle_seconds",
            "revision", "coming", "created_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(RevisionSerializer(allow_null=True))
    def get_revision(self, deployment: Deployment) -> Any:
        """The current revision."""
        return self._in(deployment, {RevisionState.CURRENT})

    @extend_schema_field(RevisionSerializer(allow_null=True))
    def get_coming(self, deployment: Deployment) -> Any:
        """The revision that is to take over, if there is one."""
        return self._in(deployment, REVISION_ON_ITS_WAY)

    def _in(self, deployment: Deployment, states: Collection[str]) -> Any:
        found = next((one for one in deployment.revisions.all() if one.state in states), None)
        return RevisionSerializer(found).data if found is not None else None


class DeploymentField(serializers.PrimaryKeyRelatedField[Deployment]):
    """A deployment of a project that the caller is a member of."""

    def get_queryset(self) -> Any:
        request = self.context.get("request")
        return Deployment.objects.none() if request is None else for_user(Deployment.objects.all(), request.user)


class ImportedModelField(serializers.PrimaryKeyRelatedField[ImportedModel]):
    """An imported model of a project that the caller is a member of."""

    def get_queryset(self) -> Any:
        request = self.context.get("request")
        return ImportedModel.objects.none() if request is None else selectors.import_list(user=request.user)


class NewRevisionSerializer(serializers.Serializer[Any]):
    """What is not given stays as it was."""

    checkpoint = CheckpointField(queryset=Checkpoint.objects.none(), required=False)
    imported_model = ImportedModelField(queryset=ImportedModel.objects.none(), required=False)
    engine = serializers.CharField(max_length=40, required=False)
    engine_config = serializers.DictField(required=False)
    plan = serializers.DictField(
        required=False,
        help_text="How it takes over: mode, steps, step_requests, step_seconds, max_error_fraction, max_ttft_seconds.",
    )


class ShiftSerializer(serializers.Serializer[Any]):
    """How many percent of the requests the revision that takes over is to get; 100 makes it the current one."""

    revision = serializers.IntegerField(help_text="Its number, so that nobody shifts another than they saw.")
    share = serializers.IntegerField(help_text="Percent, 1 to 100.")
    reason = serializers.CharField(required=False, allow_blank=True)


class RollbackSerializer(serializers.Serializer[Any]):
    """Without a number the revision that takes over is taken back; with one the deployment goes back to that revision."""

    revision = serializers.IntegerField(required=False, help_text="Number of an earlier revision.")
    reason = serializers.CharField(required=False, allow_blank=True)


class HistorySerializer(serializers.Serializer[Any]):
    """One move of the deployment, or of one of its revisions."""

    at = serializers.DateTimeField()
    revision = serializers.IntegerField(allow_null=True, help_text="Number; null is the deployment itself.")
    before = serializers.CharField()
    after = serializers.CharField()
    reason = serializers.CharField()
    user = serializers.CharField(allow_null=True, help_text="Null is the platform.")


class NewDeploymentSerializer(serializers.Serializer[Any]):
    """What a deployment begins with."""

    project = serializers.CharField(required=False, help_text="Id or slug.")
    name = serializers.CharField(max_length=80, help_text="The model's name in the gateway; unique.")
    checkpoint = CheckpointField(queryset=Checkpoint.objects.none(), required=False, help_text="This or `imported_model`.")
    imported_model = ImportedModelField(queryset=ImportedModel.objects.none(), required=False)
    engine = serializers.CharField(max_length=40)
    engine_config = serializers.DictField(required=False, help_text="See GET engines/ for the schema.")
    replicas = serializers.IntegerField(required=False, default=1)
    idle_seconds = serializers.IntegerField(required=False, help_text=IDLE_HELP)
    description = serializers.CharField(required=False, allow_blank=True, max_length=2000)


class DeploymentPatchSerializer(serializers.Serializer[Any]):
    description = serializers.CharField(required=False, allow_blank=True, max_length=2000)
    replicas = serializers.IntegerField(required=False)
    idle_seconds = serializers.IntegerField(required=False, help_text=IDLE_HELP)


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
    deployment = DeploymentField(queryset=Deployment.objects.none(), required=False, allow_null=True)
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
