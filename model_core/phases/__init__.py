"""One file a phase; see `docs/extending.md` for its shape."""

from model_core.registry import Registry

PHASES = Registry("model_core.phases", kind="phase")
