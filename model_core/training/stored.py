"""The training state on the disk: what each rank owned, as safetensors, found again by the plain names of the tensors.

    rank_00000.safetensors   "exp_avg/model.norm.weight/0:128/0": a stretch of a flattened box of a whole tensor
    trainer.json             counters, scale of the loss

Any rank of any layout reads what it needs of all files, and the whole weights are read from them to be exported.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model_core.errors import CheckpointError
from model_core.training.regions import Box, Region, extent, overlap, within

WEIGHT = "weight"
"""The state that every tensor has: its value, in float32 where the optimizer keeps one."""
_RANDOM = "random"
_KEY = re.compile(r"(?P<state>[^/]+)/(?P<name>[^/]+)/(?P<box>[\d:,]*)/(?P<start>\d+)")


@dataclass(frozen=True)
class Snapshot:
    """What a rank owns, as it was at one moment; in the memory of the CPU, whatever is trained meanwhile."""

    tensors: dict[str, Tensor]
    steps: dict[str, int]
    """Updates that each tensor had, which the correction of Adam's means counts."""
    random: dict[str, Tensor]

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def write(self, directory: Path, rank: int) -> Path:
        """Writes the file of `rank` and returns its path."""
        path = directory / file_of(rank)
        everything = {**self.tensors, **{f"{_RANDOM}/{name}": tensor for name, tensor in self.random.items()}}
        save_file(everything, path, metadata={"steps": json.dumps(self.steps)})
        return path


def file_of(rank: int) -> str:
    """The name of a rank's file."""
    return f"rank_{rank:05d}.safetensors"


def key_of(state: str, region: Region, start: int) -> str:
    """The name, in the file, of what begins at `start` of the flattened region."""
    return f"{state}/{region.name}/{','.join(f'{begin}:{end}' for begin, end in region.box)}/{start}"


@dataclass(frozen=True)
class _Piece:
    box: Box
    start: int
    numel: int
    file: Any
    key: str

    def read(self) -> Tensor:
        tensor: Tensor = self.file.get_tensor(self.key)
        return tensor


class StoredState:
    """All ranks' files of one checkpoint. Raises CheckpointError when there are none or one is no safetensors file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = [_opened(path) for path in sorted(directory.glob("rank_*.safetensors"))]
        if not self._files:
            raise CheckpointError(f"{directory} holds no training state. Choose another checkpoint, or start a new run from it.")
        self.steps: dict[str, int] = {}
        self._pieces: dict[str, dict[str, list[_Piece]]] = {}
        for file in self._files:
            self.steps.update(json.loads((file.metadata() or {}).get("steps", "{}")))
            for key in file.keys():  # noqa: SIM118 (an open file, no dictionary)
                self._note(file, key)

    @property
    def num_ranks(self) -> int:
        """How many ranks wrote it."""
        return len(self._files)

    @property
    def names(self) -> list[str]:
        """The whole tensors, by their plain names."""
        return list(self._pieces)

    def states(self, name: str) -> list[str]:
        """What is stored of a tensor: its weight, and the optimizer's states once it had an update."""
        return list(self._pieces.get(name, {}))

    def read(self, state: str, region: Region, start: int, numel: int) -> Tensor:
        """`numel` values from `start` on of the flattened region. Raises CheckpointError when not all are stored."""
        for piece in self._pieces.get(region.name, {}).get(state, []):
            if (piece.box, piece.start, piece.numel) == (region.box, start, numel):
                return piece.read()
        return self._box(state, region.name, region.box).flatten().narrow(0, start, numel)

    def whole(self, name: str) -> Tensor:
        """The whole weight, put together."""
        boxes = [piece.box for piece in self._pieces[name][WEIGHT]]
        return self._box(WEIGHT, name, tuple((0, max(end for _begin, end in dim)) for dim in zip(*boxes, strict=True)))

    def random(self, rank: int) -> dict[str, Tensor]:
        """The states of the random generators of `rank`, by device."""
        file = self._files[rank]
        keys = [key for key in file.keys() if key.startswith(f"{_RANDOM}/")]  # noqa: SIM118
        return {key.removeprefix(f"{_RANDOM}/"): file.get_tensor(key) for key in keys}

    def _note(self, file: Any, key: str) -> None:
        match = _KEY.fullmatch(key)
        if match is None:
            return
        box: Box = tuple((int(b), int(e)) for b, e in (side.split(":") for side in match["box"].split(",") if side))
        numel = math.prod(file.get_slice(key).get_shape())
        states = self._pieces.setdefault(match["name"], {})
        states.setdefault(match["state"], []).append(_Piece(box, int(match["start"]), numel, file, key))

    def _box(self, state: str, name: str, box: Box) -> Tensor:
        by_box: dict[Box, list[_Piece]] = {}
        for piece in self._pieces.get(name, {}).get(state, []):
            if overlap(piece.box, box) is not None:
                by_box.setdefault(piece.box, []).append(piece)
        if list(by_box) == [box]:
            return self._joined(name, box, by_box[box])
        result, num_filled = torch.empty(extent(box)), 0
        for stored, pieces in by_box.items():
            common = overlap(stored, box)
            assert common is not None
            part = self._joined(name, stored, pieces)[within(common, stored)]
            result[within(common, box)] = part
            num_filled += part.numel()
        if num_filled != result.numel():
            raise CheckpointError(f"{self._directory} holds {num_filled} of the {result.numel()} values of {state} of {name} that "
                                  "this rank needs. Choose another checkpoint.")
        return result

    def _joined(self, name: str, box: Box, pieces: list[_Piece]) -> Tensor:
        ordered = sorted(pieces, key=lambda piece: piece.start)
        shape, end = extent(box), 0
        for piece in ordered:
            if piece.start != end:
                break
            end += piece.numel
        if end != math.prod(shape):
            raise CheckpointError(f"{self._directory}: {name} lacks values from number {end} on. Choose another checkpoint.")
        return (ordered[0].read() if len(ordered) == 1 else torch.cat([piece.read() for piece in ordered])).view(shape)


class WholeWeights(Mapping[str, Tensor]):
    """The whole weights of a stored state by name, each read when it is asked for; the last two stay, because the experts
    of a layer are asked for one by one."""

    def __init__(self, stored: StoredState) -> None:
        self._names = dict.fromkeys(stored.names)
        self._whole = lru_cache(maxsize=2)(stored.whole)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._whole(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}. Choose another checkpoint.") from error
