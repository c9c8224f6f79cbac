"""One file a filter; see `docs/extending.md` for its shape, and `_judging` for what a filter answers."""

from model_core.registry import Registry

FILTERS = Registry("model_core.filters", kind="filter")
