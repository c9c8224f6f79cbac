"""Readings for pages, API and sockets; every list starts from what the user may see."""

from training_app.selectors.alerts import alert_list, alert_metric_names, alert_rule_list, open_alerts, run_alerts
from training_app.selectors.benchmark_files import benchmark_files
from training_app.selectors.comparing import run_ids_of, runs_comparison
from training_app.selectors.costs import cost_report, price_given
from training_app.selectors.datasets import runs_with_rollouts, version_lineage, version_preview, version_report
from training_app.selectors.evaluations import (
    benchmark_title,
    benchmarks_known,
    changed_settings,
    evaluation_compare,
    evaluation_list,
    evaluation_matrix,
    evaluation_problem,
    evaluation_problems,
)
from training_app.selectors.experts import run_experts, run_experts_history
from training_app.selectors.metrics import run_metrics, runs_metrics
from training_app.selectors.pipelines import (
    launch_list,
    launch_state,
    pipeline_graph,
    pipeline_template,
    pipeline_templates,
    spend_today,
)
from training_app.selectors.plan_code import pipeline_commands
from training_app.selectors.rates import phase_shape, rate_plot, run_rates, run_shape
from training_app.selectors.rollouts import run_example, run_prompt, run_rewards, run_rollout_steps, run_rollouts
from training_app.selectors.runs import (
    checkpoint_ancestors,
    run_checkpoints,
    run_events,
    run_list,
    run_log,
    run_log_path,
    run_log_search,
)

__all__ = [
    "alert_list", "alert_metric_names", "alert_rule_list", "benchmark_files", "benchmark_title", "benchmarks_known",
    "changed_settings", "checkpoint_ancestors", "cost_report", "evaluation_compare", "evaluation_list", "evaluation_matrix",
    "evaluation_problem", "evaluation_problems",
    "launch_list", "launch_state", "open_alerts", "phase_shape", "pipeline_commands", "pipeline_graph",
    "pipeline_template", "pipeline_templates", "price_given", "rate_plot", "run_alerts", "run_checkpoints", "run_events",
    "run_example", "run_experts", "run_experts_history", "run_ids_of", "run_list", "run_log", "run_log_path", "run_log_search",
    "run_metrics", "run_prompt", "run_rates", "run_rewards", "run_rollout_steps", "run_rollouts", "run_shape",
    "runs_comparison", "runs_metrics", "runs_with_rollouts", "spend_today", "version_lineage", "version_preview",
    "version_report",
]  # fmt: skip
