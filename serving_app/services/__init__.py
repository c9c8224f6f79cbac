"""Verbs on deployments and conversations. They check what is asked, not who asks: doors check roles."""

from serving_app.services.benchmarks import benchmark_create, benchmark_delete, benchmark_stop
from serving_app.services.checkpoint_chat import checkpoint_chat, engine_for_a_look, serving_of
from serving_app.services.continuing import message_continue
from serving_app.services.conversations import (
    compared,
    conversation_create,
    conversation_delete,
    conversation_update,
    message_edit,
    message_regenerate,
    message_send,
    message_stop,
    num_columns,
    why_not,
)
from serving_app.services.deployments import (
    deployment_create,
    deployment_delete,
    deployment_idle,
    deployment_scale,
    deployment_start,
    deployment_stop,
    deployment_update,
)
from serving_app.services.imports import import_create, import_remove
from serving_app.services.judged_datasets import accepted_rows, judged_version_create
from serving_app.services.judgements import judgement_review, message_prefer, message_rate, message_rewrite
from serving_app.services.prices import price_set
from serving_app.services.revisions import revision_create, revision_rollback, revision_shift
from serving_app.services.sharing import conversation_share, conversation_unshare, preset_create, preset_delete
from serving_app.sleeping import deployment_wake
from serving_app.transitions import (
    benchmark_transition,
    deployment_refresh,
    deployment_transition,
    import_transition,
    judgement_transition,
    message_transition,
    replica_transition,
    revision_transition,
)

__all__ = [
    "accepted_rows",
    "benchmark_create",
    "benchmark_delete",
    "benchmark_stop",
    "benchmark_transition",
    "checkpoint_chat",
    "compared",
    "conversation_create",
    "conversation_delete",
    "conversation_share",
    "conversation_unshare",
    "conversation_update",
    "deployment_create",
    "deployment_delete",
    "deployment_idle",
    "deployment_refresh",
    "deployment_scale",
    "deployment_start",
    "deployment_stop",
    "deployment_transition",
    "deployment_update",
    "deployment_wake",
    "engine_for_a_look",
    "import_create",
    "import_remove",
    "import_transition",
    "judged_version_create",
    "judgement_review",
    "judgement_transition",
    "message_continue",
    "message_edit",
    "message_prefer",
    "message_rate",
    "message_regenerate",
    "message_rewrite",
    "message_send",
    "message_stop",
    "message_transition",
    "num_columns",
    "preset_create",
    "preset_delete",
    "price_set",
    "replica_transition",
    "revision_create",
    "revision_rollback",
    "revision_shift",
    "revision_transition",
    "serving_of",
    "why_not",
]
