"""One file a source; see `docs/extending.md` for its shape."""

from model_core.registry import Registry

SOURCES = Registry("model_core.sources", kind="source")
