"""The tables of serving: deployments, conversations, judgements, usage, benchmarks. They hold data and constraints, no verbs."""

from serving_app.models.benchmarks import BenchmarkLevel, BenchmarkTransition, DeploymentBenchmark
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
    "DELETED_NAME", "BenchmarkLevel", "BenchmarkTransition", "Conversation", "ConversationShare", "Deployment",
    "DeploymentBenchmark", "DeploymentRevision", "DeploymentTransition", "Judgement", "JudgementKind", "Message", "Preset", "Price",
    "Replica", "ReplicaTransition", "RevisionTransition", "UsageRecord",
]  # fmt: skip
