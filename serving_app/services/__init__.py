"""Verbs on deployments and conversations. They check what is asked, not who asks: doors check roles."""

from serving_app.services.conversations import (
    conversation_create,
    conversation_delete,
    conversation_update,
    message_edit,
    message_regenerate,
    message_send,
    message_stop,
    why_not,
)
from serving_app.services.deployments import (
    deployment_create,
    deployment_delete,
    deployment_scale,
    deployment_start,
    deployment_stop,
    deployment_update,
    revision_create,
)
from serving_app.transitions import (
    deployment_refresh,
    deployment_transition,
    message_transition,
    replica_transition,
)

__all__ = [
    "conversation_create",
    "conversation_delete",
    "conversation_update",
    "deployment_create",
    "deployment_delete",
    "deployment_refresh",
    "deployment_scale",
    "deployment_start",
    "deployment_stop",
    "deployment_transition",
    "deployment_update",
    "message_edit",
    "message_regenerate",
    "message_send",
    "message_stop",
    "message_transition",
    "replica_transition",
    "revision_create",
    "why_not",
]
