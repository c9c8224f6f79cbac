"""The families of models that a run may train: our own, the dense students of distillation, and reward models of both.

What a loop, an engine or a checkpoint must know of a model beyond its weights is asked here, by the model's shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from model_core.causal import DenseShape, Student, StudentSampler, count_dense, export_student
from model_core.config import ModelConfig, ParallelConfig
from model_core.errors import ConfigError
from model_core.model import Transformer, export_state
from model_core.planner import count_parameters
from model_core.planner.layouts import check_layout, check_whole
from model_core.reward_model import RewardShape, export_reward_model
from model_core.reward_model.model import build
from model_core.rollout import Sampler

Shape = ModelConfig | DenseShape | RewardShape
Model = Transformer | Student
MODELS = (Transformer, Student)
"""The classes that hold a whole model."""


class Family(Protocol):
    """What differs between them; `shape` and `model` are of the family's own classes."""

    def count(self, shape: Any) -> tuple[int, int]:
        """Parameters, and those that a token passes."""

    def check_layout(self, shape: Any, parallel: ParallelConfig) -> None:
        """Raises ConfigError for what cannot be laid out so."""

    def build(self, shape: Any) -> Model:
        """A model whose weights are still to be filled in."""

    def sampler(self, model: Any, tokenizer: PreTrainedTokenizerFast) -> Sampler:
        """Draws completions from the weights that the model has."""

    def export(
        self, state: Mapping[str, Tensor], shape: Any, directory: Path, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        """Writes a directory that transformers reads."""


class OwnFamily:
    """Mixture-of-experts models of `model_core.model`."""

    def count(self, shape: ModelConfig) -> tuple[int, int]:
        """See `Family`."""
        return count_parameters(shape)

    def check_layout(self, shape: ModelConfig, parallel: ParallelConfig) -> None:
        """See `Family`."""
        check_layout(shape, parallel)

    def build(self, shape: ModelConfig) -> Transformer:
        """See `Family`."""
        return Transformer(shape)

    def sampler(self, model: Transformer, tokenizer: PreTrainedTokenizerFast) -> Sampler:
        """See `Family`."""
        return Sampler(model, eos_token_id=int(tokenizer.eos_token_id), pad_token_id=int(tokenizer.pad_token_id))

    def export(
        self, state: Mapping[str, Tensor], shape: ModelConfig, directory: Path, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        """See `Family`."""
        export_state(state, shape, directory, tokenizer)


class DenseFamily:
    """Dense models of transformers, trained whole on every process: `model_core.causal`."""

    def count(self, shape: DenseShape) -> tuple[int, int]:
        """See `Family`; a token passes all of them."""
        num = count_dense(shape)
        return num, num

    def check_layout(self, shape: DenseShape, parallel: ParallelConfig) -> None:
        """See `Family`."""
        check_whole(shape.model_type, parallel)

    def build(self, shape: DenseShape) -> Student:
        """See `Family`."""
        return Student(shape)

    def sampler(self, model: Student, tokenizer: PreTrainedTokenizerFast) -> Sampler:
        """See `Family`."""
        return StudentSampler(model, eos_token_id=int(tokenizer.eos_token_id), pad_token_id=int(tokenizer.pad_token_id))

    def export(
        self, state: Mapping[str, Tensor], shape: DenseShape, directory: Path, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        """See `Family`."""
        export_student(state, shape, directory, tokenizer)


class RewardFamily:
    """Reward models, of either family."""

    def count(self, shape: RewardShape) -> tuple[int, int]:
        """See `Family`: a row of the trunk's width in the place of the language head."""
        trunk = shape.trunk
        total, active = family_of(trunk).count(trunk)
        head = 0 if trunk.tie_word_embeddings else trunk.vocab_size * shape.hidden_size
        return total - head + shape.hidden_size, active - head + shape.hidden_size

    def check_layout(self, shape: RewardShape, parallel: ParallelConfig) -> None:
        """See `Family`."""
        family_of(shape.trunk).check_layout(shape.trunk, parallel)

    def build(self, shape: RewardShape) -> Model:
        """See `Family`."""
        return build(shape)

    def sampler(self, model: Any, tokenizer: PreTrainedTokenizerFast) -> Sampler:
        """See `Family`; the phase measures without one."""
        raise ConfigError("A reward model answers nothing, it only judges; choose another phase's checkpoint.", field="start_from")

    def export(
        self, state: Mapping[str, Tensor], shape: RewardShape, directory: Path, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        """See `Family`."""
        export_reward_model(state, shape, directory, tokenizer)


def family_of(shape: Shape) -> Family:
    """The family of a model of this shape."""
    if isinstance(shape, RewardShape):
        return RewardFamily()
    return DenseFamily() if isinstance(shape, DenseShape) else OwnFamily()
