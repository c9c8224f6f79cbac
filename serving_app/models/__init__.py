"""The tables of serving: deployments, imports, conversations, judgements, usage, benchmarks. They hold data, no verbs."""

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
from serving_app.models.imports import ImportedModel
from serving_app.models.judgements import Judgement, JudgementKind
from serving_app.models.served import Artifact, Served, served_of
from serving_app.models.usage import Price, UsageRecord

__all__ = [
    "DELETED_NAME", "Artifact", "BenchmarkLevel", "BenchmarkTransition", "Conversation", "ConversationShare", "Deployment",
    "DeploymentBenchmark", "DeploymentRevision", "DeploymentTransition", "ImportedModel", "Judgement", "JudgementKind",
    "Message", "Preset", "Price", "Replica", "ReplicaTransition", "RevisionTransition", "Served", "UsageRecord",
    "served_of",
]  # fmt: skip
