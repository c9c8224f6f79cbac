"""One file a reward; see `docs/extending.md` for its shape."""

from model_core.registry import Registry

REWARDS = Registry("model_core.rewards", kind="reward")
