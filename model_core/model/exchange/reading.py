"""Reading: a directory's tensors under published names, checked against its config.json, and a model made of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from model_core.config import ModelConfig
from model_core.errors import CheckpointError
from model_core.model.exchange.blocks import SCALE, STORED_AS, block_shape, dequantised, scales_shape
from model_core.model.exchange.names import blank_model, dtype_of, places, repeats
from model_core.model.exchange.shape import describe
from model_core.model.transformer import Transformer
from model_core.published.files import WeightFiles, named

READABLE = ("F32", "BF16", "F16")


def load_pretrained(
    directory: str | Path, *, dtype: torch.dtype = torch.float32, kind: type[Transformer] = Transformer
) -> Transformer:
    """The model of a directory, its weights in `dtype`; beside the model one tensor is in memory. `kind` is its class.

    Raises CheckpointError naming the file or the tensor; choose another directory, or mend what it names.
    """
    weights = PublishedWeights(Path(directory), kind)
    model = blank_model(weights.config, dtype, kind)
    state = model.state_dict()
    for name in weights.in_stored_order():
        weights.places[name].within(state).copy_(weights.tensor(name, dtype))
    weights.close()
    return model


class PublishedWeights:
    """The weights of a directory, of which names, shapes and formats have been checked.

    A directory that transformers wrote says that it has a block of multi-token prediction and holds none of its tensors,
    since transformers does not keep them: then the model has none.
    """

    def __init__(self, path: Path, kind: type[Transformer] = Transformer) -> None:
        described = describe(path)
        self.path, self.stored = path, described.stored
        self._block = block_shape(self.stored.get("quantization_config"), path)
        self._files = WeightFiles(path)
        self.config = self._as_held(described.config)
        self.places, self._repeats = places(self.config, kind), repeats(self.config)
        self._check_names()
        self._check_headers()

    def in_stored_order(self) -> list[str]:
        """All published names, those of one file together."""
        return sorted(self.places, key=lambda name: self._files.headers[name].file)

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        """One published tensor for a model in `dtype`. Raises CheckpointError when it is not finite, or repeated otherwise."""
        found = self._read(name)
        for again in (repeat for repeat, first in self._repeats.items() if first == name and repeat in self._files.headers):
            if not torch.equal(self._read(again), found):
                raise CheckpointError(f"{self._where(again)} differs from {name}, which it has to repeat.")
        if not found.isfinite().all():
            raise CheckpointError(f"{self._where(name)} holds NaN or infinity; the checkpoint is unusable.")
        converted = found.to(dtype_of(name, dtype))
        if converted is not found and not converted.isfinite().all():
            raise CheckpointError(f"{self._where(name)} holds numbers too large for {dtype}; choose bfloat16 or float32.")
        return converted

    def close(self) -> None:
        """Lets go of the files."""
        self._files.close()

    def _read(self, name: str) -> Tensor:
        tensor = self._files.tensor(name)
        if self._files.headers[name].stored_as != STORED_AS:
            return tensor
        assert self._block is not None
        return dequantised(tensor, self._files.tensor(name + SCALE), self._block)

    def _as_held(self, config: ModelConfig) -> ModelConfig:
        prefix = f"model.layers.{config.num_hidden_layers}."
        held = any(name.startswith(prefix) for name in self._files.headers)
        return config if held else config.model_copy(update={"num_nextn_predict_layers": 0})

    def _check_names(self) -> None:
        headers = self._files.headers
        scales = {name + SCALE for name, header in headers.items() if header.stored_as == STORED_AS}
        wanted = self.places.keys() | scales
        missing = [name for name in wanted if name not in headers]
        unexpected = [name for name in headers if name not in wanted and name not in self._repeats]
        if missing:
            raise CheckpointError(f"{self.path} lacks {len(missing)} of {len(wanted)} tensors: {named(missing)}.")
        if unexpected:
            raise CheckpointError(
                f"{self.path} holds {len(unexpected)} unexpected tensor{'s' * (len(unexpected) > 1)}: {named(unexpected)}."
            )

    def _check_headers(self) -> None:
        repeated = {name: self.places[first] for name, first in self._repeats.items() if name in self._files.headers}
        for name, place in (self.places | repeated).items():
            self._check_shape(name, place.shape)
            stored_as = self._files.headers[name].stored_as
            if stored_as == STORED_AS:
                if self._block is None or len(place.shape) != 2:
                    raise CheckpointError(f"{self._where(name)} is stored in 8 bits without blocks (quantization_config).")
                self._check_shape(name + SCALE, scales_shape(place.shape, self._block))
                self._check_format(name + SCALE)
            else:
                self._check_format(name)

    def _check_shape(self, name: str, wanted: tuple[int, ...]) -> None:
        found = self._files.headers[name].shape
        if found != wanted:
            raise CheckpointError(f"{self._where(name)} has shape {found}, config.json means {wanted}.")

    def _check_format(self, name: str) -> None:
        stored_as = self._files.headers[name].stored_as
        if stored_as not in READABLE:
            raise CheckpointError(
                f"{self._where(name)} is stored as {stored_as}, which cannot be read, only {', '.join(READABLE)}."
            )

    def _where(self, name: str) -> str:
        return f"{self.path / self._files.headers[name].file}: {name}"
