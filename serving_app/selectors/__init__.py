"""Readings for pages, API and gateway; none of them writes."""

from serving_app.selectors.conversations import conversation_list, conversation_tree
from serving_app.selectors.deployments import (
    checkpoints_deployable,
    deployment_detail,
    deployment_list,
    ready_replicas,
    replica_log,
)
from serving_app.selectors.usage import usage_summary

__all__ = [
    "checkpoints_deployable",
    "conversation_list",
    "conversation_tree",
    "deployment_detail",
    "deployment_list",
    "ready_replicas",
    "replica_log",
    "usage_summary",
]
