"""The tables of serving: deployments, conversations, judgements, usage. They hold data and constraints, no verbs."""

from serving_app.models.conversations import Conversation, ConversationShare, Message, Preset
from serving_app.models.deployments import (
    DELETED_NAME,
    Deployment,
    DeploymentRevision,
    DeploymentTransition,
    Replica,
    ReplicaTransition,
    RevisionTransition,
)
from serving_app.models.judgements import Judgement, JudgementKind
from serving_app.models.usage import Price, UsageRecord

__all__ = [
    "DELETED_NAME", "Conversation", "ConversationShare", "Deployment", "DeploymentRevision", "DeploymentTransition", "Judgement",
    "JudgementKind", "Message", "Preset", "Price", "Replica", "ReplicaTransition", "RevisionTransition",
    "UsageRecord",
]  # fmt: skip
