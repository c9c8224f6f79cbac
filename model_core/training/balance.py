"""Equal expert loads: after each update the routing bias moves towards the idle experts; a small loss may help.

Loads are counted where the router has chosen, in our own layers and in those that AutoEP put in their place alike, and
only of tokens under the `attention_mask` of a forward pass: padding, sampling, and what is computed again in the backward
pass are no load. Letters: L expert layers, T tokens, K chosen experts, E experts, B sequences.
Source: DeepSeek-V3 (arXiv 2412.19437), section 2.1.2: the bias falls by γ for an overloaded expert, else rises; the
sequence-wise loss is equations 17 to 20.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.model.moe import MoE
from model_core.model.packing import Packing
from model_core.training.world import World


@dataclass(frozen=True)
class _Pass:
    """The tokens of the forward pass that runs, or is computed again: which count how much, and in which rows they are."""

    weight_BT: Tensor
    packing: Packing | None

    def load(self) -> Tensor:
        """T: how much each token counts as load: once for every document that it stands in."""
        weight_T = self.weight_BT.flatten()
        return weight_T if self.packing is None or self.packing.shared is None else weight_T * self.packing.shared.counts_N

    @property
    def num_sequences(self) -> int:
        return len(self.weight_BT) if self.packing is None else self.packing.num_rows

    def in_sequences(self, x_TE: Tensor) -> tuple[Tensor, Tensor]:
        """Each token's values once for every sequence that it is in, and that sequence's number."""
        if self.packing is not None:
            return self.packing.in_rows(x_TE)
        num, width = self.weight_BT.shape
        return x_TE, torch.arange(num, device=x_TE.device).repeat_interleave(width)


class ExpertBalance:
    """The expert layers of a model, seen as loads and biases.

    `wants_loss` also makes the sequence-wise loss; `num_alike` ranks see the same tokens (tensor parallel).
    """

    def __init__(self, model: nn.Module, world: World, *, wants_loss: bool = False, num_alike: int = 1) -> None:
        self._world, self._wants_loss, self._num_alike = world, wants_loss, num_alike
        self._gates = [_gate(layer) for layer in model.modules() if _is_moe(layer)]
        self._pass: _Pass | None = None
        self._is_counting = False
        self._losses: list[Tensor] = []
        self._loads = [torch.zeros(_num_experts(gate), device=_weight(gate).device) for gate in self._gates]
        for place, gate in enumerate(self._gates):
            if _bias(gate) is not None:
                # 16-bit engines cast it too, and then steps of 0.001 are lost in rounding.
                gate.e_score_correction_bias.data = gate.e_score_correction_bias.data.float()
            gate.register_forward_hook(lambda gate, inputs, routed, place=place: self._count(place, gate, inputs[0], routed[1]))
        if self._gates:
            model.register_forward_pre_hook(self._begin, with_kwargs=True)
            model.register_forward_hook(self._end, always_call=True)

    @torch.no_grad()
    def take_loads(self) -> Tensor:
        """Tokens per expert since the last call, over all ranks. Shape LE; (0, 0) without experts."""
        if not self._gates:
            return torch.zeros(0, 0)
        loads_LE = torch.stack(self._loads)
        for loads_E in self._loads:
            loads_E.zero_()
        return self._world.sum(loads_LE).cpu() / self._num_alike

    def take_loss(self) -> Tensor | float:
        """Sum over layers and sequences of the balance loss of the last forward pass, with its gradient; 0 when there is
        none. A sequence whose tokens are spread evenly gives 1 a layer."""
        losses, self._losses = self._losses, []
        return torch.stack(losses).sum() if losses else 0.0

    @torch.no_grad()
    def move(self, loads_LE: Tensor, speed: float) -> None:
        """Moves each bias by `speed` against its expert's overload."""
        for gate, loads_E in zip(self._gates, loads_LE, strict=True):
            bias_E = _bias(gate)
            if bias_E is not None:
                bias_E.add_(torch.sign(loads_E.mean() - loads_E).to(bias_E), alpha=speed)

    def biases(self) -> list[list[float]]:
        """The routing bias, by layer and expert; zeros where the gate has none."""
        biases = [_bias(gate) for gate in self._gates]
        return [
            [0.0] * len(loads_E) if bias_E is None else bias_E.detach().float().tolist()
            for bias_E, loads_E in zip(biases, self._loads, strict=True)
        ]

    def _begin(self, _model: nn.Module, inputs: Any, given: dict[str, Any]) -> None:
        mask_BT, packing = given.get("attention_mask"), given.get("packing")
        self._losses, self._is_counting, self._pass = [], mask_BT is not None, None
        if mask_BT is None:
            return
        self._pass = _Pass(mask_BT.float(), packing)

    def _end(self, _model: nn.Module, _inputs: Any, _logits: Any) -> None:
        self._is_counting = False  # the pass stays known: recomputation must do again what was done

    def _count(self, place: int, gate: Any, x_TD: Tensor, chosen_TK: Tensor) -> None:
        if self._pass is None or not (self._is_counting or torch.is_grad_enabled()):
            return
        if self._wants_loss:
            loss = _sequence_loss(_scores(gate, x_TD), chosen_TK, self._pass)
            if self._is_counting:
                self._losses.append(loss)
        if self._is_counting:
            with torch.no_grad():
                real_TK = self._pass.load()[:, None].expand_as(chosen_TK)
                self._loads[place].scatter_add_(0, chosen_TK.flatten(), real_TK.flatten())


def _sequence_loss(scores_TE: Tensor, chosen_TK: Tensor, made: _Pass) -> Tensor:
    """Σ over sequences and experts of (share of tokens that chose it, 1 when even) · (its mean share of the scores)."""
    num_experts, num_chosen = scores_TE.shape[1], chosen_TK.shape[1]
    weight_T1 = made.weight_BT.flatten()[:, None]
    was_chosen_TE = torch.zeros_like(scores_TE).scatter_(1, chosen_TK, 1.0) * weight_T1
    share_TE = scores_TE / scores_TE.sum(dim=1, keepdim=True) * weight_T1
    of_all, sequence_Q = made.in_sequences(torch.cat([weight_T1, was_chosen_TE, share_TE], dim=1))
    sums_B = scores_TE.new_zeros(made.num_sequences, of_all.shape[1]).index_add(0, sequence_Q, of_all)
    length_B1, chosen_BE, share_BE = sums_B[:, :1].clamp_min(1), sums_B[:, 1 : 1 + num_experts], sums_B[:, 1 + num_experts :]
    fraction_BE = chosen_BE * (num_experts / num_chosen) / length_B1
    return (fraction_BE * share_BE / length_B1).sum()


class WithBalance:
    """A forward pass whose loss also asks for even loads within each sequence. `value` is what that added."""

    def __init__(self, compute: Callable[[nn.Module], Tensor], balance: ExpertBalance, factor: float) -> None:
        self._compute, self._balance, self._factor, self.value = compute, balance, factor, 0.0

    def __call__(self, model: nn.Module) -> Tensor:
        loss = self._compute(model)
        added = self._factor * self._balance.take_loss()
        self.value = float(added.detach()) if isinstance(added, Tensor) else added
        return loss + added


def load_metrics(loads_LE: Tensor, biases: list[list[float]]) -> dict[str, float]:
    """The `moe/…` scalars; none when no token was routed."""
    if not loads_LE.numel() or not loads_LE.sum():
        return {}
    relative_LE = loads_LE / loads_LE.mean(dim=1, keepdim=True)
    return {
        "moe/max_vio": float(relative_LE.amax(dim=1).max() - 1),
        "moe/load_cv": float(relative_LE.std(dim=1, correction=0).mean()),
        "moe/bias_norm": float(torch.tensor(biases).norm(dim=1).mean()),
    }


def load_event(loads_LE: Tensor, biases: list[list[float]]) -> dict[str, Any]:
    """Payload of an `experts` event, without its step."""
    shares_LE = loads_LE / loads_LE.sum(dim=1, keepdim=True).clamp_min(1)
    relative_LE = shares_LE * shares_LE.shape[1]
    return {
        "layers": _rounded(shares_LE.tolist()), "bias": _rounded(biases),
        "max_violation": [round(v, 4) for v in (relative_LE.amax(dim=1) - 1).tolist()],
    }


def _rounded(rows: list[list[float]]) -> list[list[float]]:
    return [[round(value, 5) for value in row] for row in rows]


def _is_moe(module: nn.Module) -> bool:
    return isinstance(module, MoE) or bool(getattr(module, "_is_autoep_layer", False))


def _gate(layer: nn.Module) -> Any:
    """Where experts are chosen and the bias lives: `router` in AutoEP's layer, `gate` in ours."""
    return layer.router if getattr(layer, "_is_autoep_layer", False) else layer.gate


def _weight(gate: Any) -> Tensor:
    weight: Tensor = gate.weight if hasattr(gate, "weight") else gate.gate.weight
    return weight


def _num_experts(gate: Any) -> int:
    """From the gate's weight, of which ZeRO-3 leaves only the memory of its shape."""
    return int(getattr(_weight(gate), "ds_shape", _weight(gate).shape)[0])


def _bias(gate: Any) -> Tensor | None:
    bias: Tensor | None = getattr(gate, "e_score_correction_bias", None)
    return bias


def _scores(gate: Any, x_TD: Tensor) -> Tensor:
    """The scores that the gate chose by, TE, without the bias."""
    if hasattr(gate, "scores"):
        ours: Tensor = gate.scores(x_TD)
        return ours
    logits_TE = F.linear(x_TD.float(), _weight(gate).float())
    return logits_TE.sigmoid() if gate.score_func == "sigmoid" else logits_TE.softmax(dim=-1)
