"""One file a filter; see `docs/extending.md` for its shape."""

from model_core.registry import Registry

FILTERS = Registry("model_core.filters", kind="filter")
