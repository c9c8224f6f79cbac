"""Where the tensors that a rank holds lie in the whole model: a plain name and a box of indices.

AutoEP gives a rank some experts under its own names, AutoTP some heads, a pipeline some blocks; the plain names are those
of `model_core.model.Transformer`. What ZeRO cuts is a stretch of a flattened box: see `state`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from model_core.training.families import Shape
from model_core.training.tensor import cut_dimension

Box = tuple[tuple[int, int], ...]
"""First and last-but-one index along each dimension."""
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True)
class Region:
    """The part `box` of the whole tensor `name`; a copy is held by another stage of a pipeline too, which saves it."""

    name: str
    box: Box
    is_copy: bool = False


def regions(module: nn.Module, config: Shape) -> dict[str, tuple[Tensor, Region]]:
    """Every parameter and saved buffer of `module`, by its name there, and where it lies in a model of `config`."""
    saved = module.state_dict().keys()
    tensors = {**dict(module.named_parameters()), **{name: b for name, b in module.named_buffers() if name in saved}}
    found = {name: Region(name, tuple((0, size) for size in shape_of(tensor))) for name, tensor in tensors.items()}
    for path, layer in module.named_modules():
        if getattr(layer, "_is_autoep_layer", False):
            found.update(_of_experts(path, layer, found))
        elif hasattr(layer, "tp_world_size") and (dim := cut_dimension(f"{path}.weight")) is not None:
            found[f"{path}.weight"] = _of_heads(found[f"{path}.weight"], layer, dim)
    if config.tie_word_embeddings and HEAD in found:  # the last stage of a pipeline
        found[HEAD] = Region(EMBEDDING, found[HEAD].box, is_copy=True)
    return {name: (tensors[name], region) for name, region in found.items()}


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """Its shape, also when ZeRO-3 has taken its content away."""
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def extent(box: Box) -> tuple[int, ...]:
    """The shape of what is in the box."""
    return tuple(end - begin for begin, end in box)


def overlap(one: Box, other: Box) -> Box | None:
    """What two boxes of one tensor have in common."""
    both = tuple((max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(one, other, strict=True))
    return both if all(begin < end for begin, end in both) else None


def within(inner: Box, outer: Box) -> tuple[slice, ...]:
    """The indices of `inner` in a tensor that holds `outer`."""
    return tuple(slice(i[0] - o[0], i[1] - o[0]) for i, o in zip(inner, outer, strict=True))


def _of_experts(path: str, layer: Any, found: dict[str, Region]) -> dict[str, Region]:
    """AutoEP's names: the gate is `router`, and of the stacks w1 is the gate, w3 the way up, w2 the way down."""
    own = (layer.ep_rank * layer.num_local_experts, (layer.ep_rank + 1) * layer.num_local_experts)
    renamed = {
        name: Region(name.replace(f"{path}.router.gate.", f"{path}.gate.").replace(f"{path}.router.", f"{path}.gate."), region.box)
        for name, region in found.items() if name.startswith(f"{path}.router.")
    }
    _experts, inner, hidden = found[f"{path}.experts.w1"].box
    both, down = f"{path}.experts.gate_up_proj", f"{path}.experts.down_proj"
    upper = (inner[1], 2 * inner[1])
    return {
        **renamed, f"{path}.experts.w1": Region(both, (own, inner, hidden)),
        f"{path}.experts.w3": Region(both, (own, upper, hidden)), f"{path}.experts.w2": Region(down, (own, hidden, inner)),
    }


def _of_heads(region: Region, layer: Any, dim: int) -> Region:
    """AutoTP cuts evenly; `layouts` has refused what does not divide."""
    size = region.box[dim][1]
    cut = (layer.tp_index * size, (layer.tp_index + 1) * size)
    return Region(region.name, (*region.box[:dim], cut, *region.box[dim + 1 :]))
