"""Verbs on datasets, pipelines and runs. They check what is asked, not who asks: doors check roles."""

from training_app.services.alerts import (
    alert_rule_create,
    alert_rule_delete,
    alert_rule_update,
    alert_rules_usual,
    alert_see,
)
from training_app.services.datasets import (
    dataset_create,
    dataset_delete,
    upload_create,
    version_prepare,
    version_stop,
)
from training_app.services.evaluations import evaluation_create, evaluation_delete, evaluation_resume, evaluation_stop
from training_app.services.gates import (
    NotHeld,
    changed,
    gate_keys,
    gate_override,
    gate_roll_back,
    roll_back_choices,
    run_retry_changed,
)
from training_app.services.pipelines import (
    launch_pause,
    launch_resume,
    launch_stop,
    pipeline_budget_set,
    pipeline_create,
    pipeline_launch,
    pipeline_phase_update,
)
from training_app.services.plans import (
    phase_add,
    phase_move,
    phase_remove,
    phase_run,
    phase_source_set,
    pipeline_clone,
    pipeline_spec,
)
from training_app.services.runs import (
    again,
    checkpoint_dir,
    checkpoint_model_dir,
    replacement_of,
    run_clone,
    run_create,
    run_notes_set,
    run_pause,
    run_resume,
    run_retry,
    run_stop,
    run_tags_set,
)
from training_app.services.sources import OF_A_RUN, readers_of, rows_look, upload_benchmark_set
from training_app.services.templates import learnt_from, pipeline_from_template

__all__ = [
    "OF_A_RUN", "NotHeld", "again", "alert_rule_create", "alert_rule_delete", "alert_rule_update", "alert_rules_usual",
    "alert_see", "changed", "checkpoint_dir", "checkpoint_model_dir", "dataset_create", "dataset_delete", "evaluation_create",
    "evaluation_delete", "evaluation_resume", "evaluation_stop", "gate_keys", "gate_override", "gate_roll_back",
    "launch_pause", "launch_resume", "launch_stop", "learnt_from", "phase_add", "phase_move", "phase_remove", "phase_run",
    "phase_source_set", "pipeline_budget_set", "pipeline_clone", "pipeline_create", "pipeline_from_template",
    "pipeline_launch", "pipeline_phase_update", "pipeline_spec", "readers_of", "replacement_of", "roll_back_choices",
    "rows_look", "run_clone", "run_create", "run_notes_set", "run_pause", "run_resume", "run_retry", "run_retry_changed",
    "run_stop", "run_tags_set", "upload_benchmark_set", "upload_create", "version_prepare", "version_stop",
]  # fmt: skip
