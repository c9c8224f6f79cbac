"""Sampling from the model. `sampler` makes whole batches for training and measuring, `stream` serves; both stand on `decoder`.

`batch` keeps the rows of a whole batch filled, `speculative` decodes few greedy rows with drafts, `cache` is what rows hold.
"""

from model_core.rollout.batch import Completion
from model_core.rollout.sampler import Sampler

__all__ = ["Completion", "Sampler"]
