"""Readings for pages, API and gateway; none of them writes."""

from serving_app.selectors.benchmarks import benchmark_list, benchmark_rows, benchmarks_compared, level_row
from serving_app.selectors.conversations import (
    conversation_list,
    conversation_messages,
    conversation_tree,
    preset_list,
    share_found,
)
from serving_app.selectors.deployments import (
    checkpoints_deployable,
    deployment_detail,
    deployment_history,
    deployment_list,
    has_deployable,
    ready_replicas,
    replica_log,
)
from serving_app.selectors.imports import import_list, models_found
from serving_app.selectors.judgements import (
    Pair,
    judged_checkpoint,
    judged_versions,
    judgement_counts,
    judgement_list,
    own_judgements,
    win_rates,
)
from serving_app.selectors.lineage import former_of, formers_of
from serving_app.selectors.tokens import message_tokens
from serving_app.selectors.usage import keys_with_budget, usage_rows, usage_summary

__all__ = [
    "Pair",
    "benchmark_list",
    "benchmark_rows",
    "benchmarks_compared",
    "checkpoints_deployable",
    "conversation_list",
    "conversation_messages",
    "conversation_tree",
    "deployment_detail",
    "deployment_history",
    "deployment_list",
    "former_of",
    "formers_of",
    "has_deployable",
    "import_list",
    "judged_checkpoint",
    "judged_versions",
    "judgement_counts",
    "judgement_list",
    "keys_with_budget",
    "level_row",
    "message_tokens",
    "models_found",
    "own_judgements",
    "preset_list",
    "ready_replicas",
    "replica_log",
    "share_found",
    "usage_rows",
    "usage_summary",
    "win_rates",
]
