"""Verbs on datasets, pipelines and runs. They check what is asked, not who asks: doors check roles."""

from training_app.services.datasets import (
    dataset_create,
    dataset_delete,
    upload_create,
    version_prepare,
    version_stop,
)
from training_app.services.pipelines import (
    launch_pause,
    launch_resume,
    launch_stop,
    pipeline_create,
    pipeline_from_template,
    pipeline_launch,
    pipeline_phase_update,
)
from training_app.services.runs import (
    again,
    checkpoint_dir,
    checkpoint_model_dir,
    gate_override,
    run_clone,
    run_create,
    run_notes_set,
    run_pause,
    run_resume,
    run_retry,
    run_stop,
    run_tags_set,
)

__all__ = [
    "again", "checkpoint_dir", "checkpoint_model_dir", "dataset_create", "dataset_delete", "gate_override", "launch_pause",
    "launch_resume", "launch_stop", "pipeline_create", "pipeline_from_template", "pipeline_launch",
    "pipeline_phase_update", "run_clone", "run_create", "run_notes_set", "run_pause", "run_resume", "run_retry",
    "run_stop", "run_tags_set", "upload_create", "version_prepare", "version_stop",
]  # fmt: skip
