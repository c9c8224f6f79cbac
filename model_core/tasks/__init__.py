"""One file a task; see `docs/extending.md` for its shape."""

from model_core.registry import Registry

TASKS = Registry("model_core.tasks", kind="task")
