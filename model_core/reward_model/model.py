"""A trunk with a scalar head: what it says at the last token of a text is the text's score.

The head is drawn from N(0, 1 / (D + 1)) (Stiennon et al., arXiv 2009.01325, appendix B.1). `centre` is the mean score of the
answers that the model has lately learnt from: scores have no origin of their own, because the loss knows differences only, and
what is above the centre is better than they were. Letters: B rows, T tokens, M places that are asked for, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model_core.causal.shape import DenseShape
from model_core.causal.student import Student
from model_core.config import ModelConfig
from model_core.model.packing import Packing
from model_core.model.transformer import Transformer

CENTRE, SCORE = "centre", "score.weight"


@dataclass(frozen=True)
class RewardShape:
    """The shape of a reward model: that of its trunk, which predicts no tokens."""

    trunk: ModelConfig | DenseShape

    @classmethod
    def of(cls, trunk: ModelConfig | DenseShape) -> RewardShape:
        """Without the blocks of multi-token prediction."""
        return cls(trunk.model_copy(update={"num_nextn_predict_layers": 0}) if isinstance(trunk, ModelConfig) else trunk)

    def resolved(self) -> dict[str, Any]:
        """Complete JSON, of the trunk; that it is one of a reward model is told by the checkpoint's phase."""
        return self.trunk.resolved()

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.trunk.hidden_size if isinstance(self.trunk, ModelConfig) else self.trunk.values["hidden_size"])

    @property
    def max_position_embeddings(self) -> int:
        """Longest sequence, in tokens."""
        return self.trunk.max_position_embeddings

    @property
    def tie_word_embeddings(self) -> bool:
        """There is no language head that could be tied; its trunk's config.json may say so."""
        return False

    @property
    def num_nextn_predict_layers(self) -> int:
        """A reward model predicts nothing."""
        return 0


class _Head(nn.Module):
    """What both families' reward models have. The centre stays float32 in every precision, for its steps are small."""

    lm_head: nn.Linear
    score: nn.Linear
    centre: Tensor

    def _replace_head(self, width: int) -> None:
        del self.lm_head
        self.score = nn.Linear(width, 1, bias=False)
        self.register_buffer(CENTRE, torch.zeros(1))
        if not self.score.weight.is_meta:
            nn.init.normal_(self.score.weight, std=(width + 1) ** -0.5)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = self.centre
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not before.is_meta:
            self.centre = before.to(self.centre.device)
        return self

    def scores(self, hidden_BTD: Tensor, at_M: Tensor) -> Tensor:
        """The head's number at these places of the flattened batch, M."""
        scores_M1: Tensor = self.score(hidden_BTD.flatten(0, 1).index_select(0, at_M))
        return scores_M1.squeeze(-1)


class RewardTransformer(_Head, Transformer):
    """Of our own family. Its head is new, or left to whoever fills it in."""

    unpublished = (CENTRE,)

    def __init__(self, config: ModelConfig, *, is_blank: bool = False) -> None:
        Transformer.__init__(self, config, is_blank=is_blank)
        self._replace_head(config.hidden_size)

    def forward(  # type: ignore[override]  # scores in the place of logits
        self, tokens_BT: Tensor, *, at_M: Tensor, attention_mask: Tensor | None = None, packing: Packing | None = None
    ) -> Tensor:
        """Scores M at the places `at_M`; see `Transformer.forward` for the rest."""
        hidden_BTD, _latents = self.hidden(tokens_BT, packing)
        return self.scores(hidden_BTD, at_M)


class RewardStudent(_Head, Student):
    """Of the dense models of transformers."""

    def __init__(self, shape: DenseShape) -> None:
        Student.__init__(self, shape)
        self._replace_head(RewardShape(shape).hidden_size)

    def forward(  # type: ignore[override]  # scores in the place of logits
        self, tokens_BT: Tensor, *, at_M: Tensor, attention_mask: Tensor | None = None, packing: Packing | None = None
    ) -> Tensor:
        """Scores M at the places `at_M`; see `Student.forward` for the rest."""
        return self.scores(self.hidden(tokens_BT, packing), at_M)


RewardModel = RewardTransformer | RewardStudent


def build(shape: RewardShape) -> RewardModel:
    """A reward model of this shape with fresh weights."""
    return RewardTransformer(shape.trunk) if isinstance(shape.trunk, ModelConfig) else RewardStudent(shape.trunk)


def with_head(model: Transformer | Student) -> tuple[RewardModel, RewardShape]:
    """A language model as a reward model, with its trunk and a new head."""
    shape = RewardShape.of(model.config)
    made = build(shape)
    theirs = model.state_dict()
    made.load_state_dict({name: theirs.get(name, own) for name, own in made.state_dict().items()})
    return made, shape
