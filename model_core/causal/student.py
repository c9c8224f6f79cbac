"""A dense causal model of transformers with the calls of our own: packed rows, logits only where they are asked for.

Its parameters have the names of the published directory. Letters: B rows, T tokens, N tokens of a packed row, M places
whose logits are wanted, D hidden, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from model_core.causal.shape import DenseShape
from model_core.model.packing import Packing


def transformers_maker() -> Any:
    """`AutoModelForCausalLM`, which loads the classes of all models: only who has a student waits for that."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM


class Student(nn.Module):
    """A student with fresh weights, as `initialise` draws them."""

    def __init__(self, shape: DenseShape) -> None:
        super().__init__()
        whole = transformers_maker().from_config(shape.config(), attn_implementation="sdpa", dtype=torch.float32)
        self.config = shape
        self.model: Any = whole.model
        self.lm_head: nn.Linear = whole.lm_head
        self.initialise()

    def forward(
        self, tokens_BT: Tensor, *, attention_mask: Tensor | None = None, packing: Packing | None = None,
        at_M: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits BTV, or with `at_M` MV; see `model_core.model.Transformer`, whose rows are padded on the right too.

        With `packing` the documents of the one row are spread to rows of their own: causality keeps them apart and each
        begins at position 0, for much less work than a mask of N times N. `attention_mask` is not looked at.
        """
        hidden_BTD = self.hidden(tokens_BT, packing)
        if at_M is not None:
            hidden_BTD = hidden_BTD.flatten(0, 1).index_select(0, at_M)
        logits: Tensor = self.lm_head(hidden_BTD)
        return logits

    def hidden(self, tokens_BT: Tensor, packing: Packing | None = None) -> Tensor:
        """Last hidden states BTD, normalised."""
        rows_BT = tokens_BT if packing is None else packing.spread(tokens_BT)
        hidden_BTD: Tensor = self.model(input_ids=rows_BT, use_cache=False).last_hidden_state
        return hidden_BTD if packing is None else packing.together(hidden_BTD)

    def step(self, tokens_BT: Tensor, *, mask: Tensor, positions_BT: Tensor, cache: Any) -> Tensor:
        """Logits BV after the last token of each row. Rows are padded on the left; `mask` covers what the cache holds and
        these tokens, and the cache grows by them."""
        hidden_BTD = self.model(
            input_ids=tokens_BT, attention_mask=mask, position_ids=positions_BT, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits_BV: Tensor = self.lm_head(hidden_BTD[:, -1])
        return logits_BV

    @torch.no_grad()
    def initialise(self) -> None:
        """Fresh weights by the rule of `model_core.model.Transformer.initialise`; biases are 0, norms 1."""
        residual = 1 / math.sqrt(2 * self.config.num_hidden_layers)
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear):
                factor = residual if name.endswith(("o_proj", "down_proj")) else 1.0
                module.weight.normal_(0, factor / math.sqrt(module.in_features))
        self.lm_head.weight.normal_(0, 0.02)
        if not self.config.tie_word_embeddings:
            self.model.embed_tokens.weight.normal_(0, 0.5)
