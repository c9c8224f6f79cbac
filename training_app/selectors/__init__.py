"""Readings for pages, API and sockets; every list starts from what the user may see."""

from training_app.selectors.datasets import version_lineage, version_preview
from training_app.selectors.metrics import run_metrics
from training_app.selectors.pipelines import (
    launch_list,
    pipeline_graph,
    pipeline_template,
    pipeline_templates,
    spend_today,
)
from training_app.selectors.runs import (
    run_checkpoints,
    run_events,
    run_experts,
    run_list,
    run_log,
    run_rollout_steps,
    run_rollouts,
)

__all__ = [
    "launch_list", "pipeline_graph", "pipeline_template", "pipeline_templates", "run_checkpoints", "run_events",
    "run_experts", "run_list", "run_log", "run_metrics", "run_rollout_steps", "run_rollouts", "spend_today",
    "version_lineage", "version_preview",
]  # fmt: skip
