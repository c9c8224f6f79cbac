"""The reward model: the trunk of a language model with a head that gives one number for a prompt and an answer.

`model` is the module, of our own family and of the dense students; `exchange` reads and writes it as transformers' classes for
sequence classification with one label; `scoring` gives texts their scores. It is trained by the phase `reward_model` and asked
by the reward `preference`. Source: Stiennon et al. (arXiv 2009.01325), Ouyang et al. (arXiv 2203.02155), section 3.5.
"""

from model_core.reward_model.exchange import export_reward_model, load_reward_model
from model_core.reward_model.model import RewardModel, RewardShape, RewardStudent, RewardTransformer, with_head

__all__ = [
    "RewardModel", "RewardShape", "RewardStudent", "RewardTransformer", "export_reward_model", "load_reward_model", "with_head",
]  # fmt: skip
