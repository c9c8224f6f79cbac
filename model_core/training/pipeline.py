"""A model cut into stages by DeepSpeed's PipelineModule: each rank holds some blocks and passes activations on (1F1B).

PipelineModule was taken and not DualPipeV, because it has no least number of forward passes in a step (DualPipeV wants
two for each stage, and a phase's step may have one) and keeps each weight on one stage. Every rank makes the same list of
passes from the same batch, so that tokens' positions and masks need not travel; only hidden states do.
Letters: B sequences, T positions, D hidden, V vocabulary.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from deepspeed.pipe import PipelineModule, TiedLayerSpec
from torch import Tensor, nn

from model_core.model import Transformer
from model_core.model.moe import Gate, MoE
from model_core.planner.layouts import blocks_of_stages

TIED = "embedding"


class Pass(Protocol):
    """One forward pass as a pipeline needs it: what goes in at the first stage, what becomes of it at the last."""

    @property
    def tokens(self) -> Tensor:
        """What the model reads."""

    @property
    def given(self) -> dict[str, Any]:
        """The keyword arguments of the model's forward: attention_mask, packing, at_M."""

    def loss(self, logits: Tensor) -> Tensor:
        """This pass's part of the loss."""


class EmbeddingPart(nn.Module):
    """The first layer of the first stage."""

    def __init__(self, embed_tokens: nn.Embedding) -> None:
        super().__init__()
        self.embed_tokens = embed_tokens

    def forward(self, tokens_BT: Tensor, _given: dict[str, Any]) -> Tensor:
        embedded_BTD: Tensor = self.embed_tokens(tokens_BT)
        return embedded_BTD


class BlockPart(nn.Module):
    """One block, which knows the angles of its positions."""

    cos: Tensor
    sin: Tensor

    def __init__(self, block: nn.Module, cos: Tensor, sin: Tensor) -> None:
        super().__init__()
        self.block = block
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x_BTD: Tensor, given: dict[str, Any]) -> Tensor:
        packing = given.get("packing")
        positions = torch.arange(x_BTD.shape[1], device=x_BTD.device)[None] if packing is None else packing.positions_1N
        out_BTD: Tensor = self.block(x_BTD, self.cos[positions], self.sin[positions], packing)[0]
        return out_BTD


class NormPart(nn.Module):
    """The last layer but one, apart from the head, whose weight may be tied."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x_BTD: Tensor, _given: dict[str, Any]) -> Tensor:
        normed_BTD: Tensor = self.norm(x_BTD)
        return normed_BTD


class HeadPart(nn.Module):
    """The last layer of the last stage."""

    def __init__(self, lm_head: nn.Module) -> None:
        super().__init__()
        self.lm_head = lm_head

    def forward(self, x_BTD: Tensor, given: dict[str, Any]) -> Tensor:
        at_M = given.get("at_M")
        logits: Tensor = self.lm_head(x_BTD if at_M is None else x_BTD.flatten(0, 1)[at_M])
        return logits


class RemoteMoE(MoE):
    """Stands for the expert layer of another stage: its routing bias moves here too, so that every rank knows all."""

    def __init__(self, gate: Gate) -> None:
        nn.Module.__init__(self)
        self.gate = RemoteGate(gate)  # type: ignore[assignment]


class RemoteGate(nn.Module):
    """Nothing but the bias, and the number of experts as the length of a weight without columns."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        bias = gate.e_score_correction_bias
        self.register_buffer("weight", gate.weight.detach()[:, :0].clone(), persistent=False)
        self.register_buffer("e_score_correction_bias", None if bias is None else bias.clone(), persistent=False)


class Stage(nn.Module):
    """The part of a model that this rank holds, under the model's own names; what other stages hold is only hinted at."""

    def __init__(self, model: Transformer, parts: Sequence[nn.Module], blocks: range) -> None:
        super().__init__()
        self._parts = tuple(parts)  # a tuple registers nothing: the names below are the ones that count
        self.model = nn.Module()
        if blocks.start == 0:
            self.model.embed_tokens = model.model.embed_tokens
        self.model.layers = nn.ModuleDict()
        for index, block in enumerate(model.blocks):
            if index in blocks:
                self.model.layers[str(index)] = block
            elif isinstance(block.mlp, MoE):
                self.model.layers[str(index)] = RemoteMoE(block.mlp.gate)
        if blocks.stop == len(model.blocks):
            self.model.norm, self.lm_head = model.model.norm, model.lm_head

    def forward(self, x: Tensor, **given: Any) -> Tensor:
        """Hidden states BTD, or the logits of the last stage; see `Pass.given`."""
        for part in self._parts:
            x = part(x, given)
        return x


class StagedTransformer(PipelineModule):  # type: ignore[misc]
    """What DeepSpeed's pipeline engine runs: this rank's stage, pass after pass."""

    def __init__(self, model: Transformer, *, num_stages: int, num_groups: int) -> None:
        self.config, self._num_groups = model.config, num_groups
        self._blocks = blocks_of_stages(model.config.num_hidden_layers, num_stages)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its parts
            super().__init__(_parts(model), num_stages=num_stages, loss_fn=self._loss_of, dynamic_shape=True)
        self._layer_specs: list[Any] = []  # lets go of the other stages' blocks
        # In a tuple it is no child of this module: both know the same weights by the model's own names.
        self._held = (Stage(model, self.forward_funcs, self._blocks[self.stage_id]),)
        self._take_plain_names()
        self._passes: Sequence[Pass] = ()
        self._losses: list[float] = []
        self._next = 0

    @property
    def stage(self) -> Stage:
        """This rank's part of the model."""
        return self._held[0]

    def begin(self, passes: Sequence[Pass]) -> Iterator[tuple[Tensor, Tensor]]:
        """Takes the passes of the next step and gives what DeepSpeed loads: tokens, and the number of the pass."""
        self._passes, self._losses, self._next = passes, [], 0
        return iter([(one.tokens, torch.tensor(number)) for number, one in enumerate(passes)])

    def loss(self) -> float:
        """Sum of the losses of the step; 0 but on the last stage."""
        return sum(self._losses)

    def forward(self, x: Tensor) -> Tensor:
        """The next pass: each stage makes its forward passes in their order."""
        given = self._passes[self._next].given
        self._next += 1
        out: Tensor = self.stage(x, **given)
        return out

    def _loss_of(self, logits: Tensor, number: Tensor) -> Tensor:
        loss = self._passes[int(number)].loss(logits)
        self._losses.append(float(loss.detach()))
        # DeepSpeed takes the mean over the groups of what is meant as a sum.
        return loss * self._num_groups

    def _partition_layers(self, method: str = "") -> None:
        """Cuts by blocks, in the place of DeepSpeed's ways, none of which lets experts decide."""
        last = self._blocks[-1].stop
        self.parts = [0, *(1 + blocks.start for blocks in self._blocks[1:]), last + 3]
        stage = self._topo.get_coord(self.global_rank).pipe
        self._set_bounds(start=self.parts[stage], stop=self.parts[stage + 1])

    def _take_plain_names(self) -> None:
        """Registers this rank's weights as a whole model would, so that layouts share groups, experts and checkpoints."""
        tied: dict[str, nn.Module] = dict(self.tied_modules.items())  # type: ignore[has-type]
        for name, _part in list(self.named_children()):
            delattr(self, name)
        self.tied_modules = tied
        here, self.model = self.stage.model, nn.Module()
        for name, child in here.named_children():
            self.model.add_module(name, child if name != "layers" else self._own_blocks(child))
        if hasattr(self.stage, "lm_head"):
            self.lm_head = self.stage.lm_head

    def _own_blocks(self, layers: nn.Module) -> nn.ModuleDict:
        own = self._blocks[self.stage_id]
        return nn.ModuleDict({name: block for name, block in layers.named_children() if int(name) in own})


def _parts(model: Transformer) -> list[nn.Module | TiedLayerSpec]:
    """The model as a chain: embedding, blocks, norm, head; the two ends tied where they are one weight."""
    ends: list[Any] = [EmbeddingPart(model.model.embed_tokens), HeadPart(model.lm_head)]
    if model.config.tie_word_embeddings:
        ends = [
            TiedLayerSpec(TIED, EmbeddingPart, model.model.embed_tokens, tied_weight_attr="embed_tokens.weight"),
            TiedLayerSpec(TIED, HeadPart, model.lm_head, tied_weight_attr="lm_head.weight"),
        ]
    blocks = [BlockPart(block, model.cos, model.sin) for block in model.blocks]
    return [ends[0], *blocks, NormPart(model.model.norm), ends[1]]
