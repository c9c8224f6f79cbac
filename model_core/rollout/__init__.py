"""Sampling from the model. `sampler` makes whole batches for training and measuring; `cache` is the step below it."""

from model_core.rollout.sampler import Completion, Sampler

__all__ = ["Completion", "Sampler"]
