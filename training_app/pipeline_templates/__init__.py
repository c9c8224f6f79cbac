"""One file a pipeline template: its name is what `Pipeline.template` holds."""

from model_core.registry import Registry

PIPELINE_TEMPLATES = Registry("training_app.pipeline_templates", kind="pipeline template")
