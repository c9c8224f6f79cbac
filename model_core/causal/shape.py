"""The shape of a dense student: what its config.json says, of the classes that a student may be of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from model_core.errors import CheckpointError
from model_core.published.families import DENSE

_OF_A_FILE = {
    "_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "reward_centre",
}  # fmt: skip
"""What config.json says beside the shape; it is written anew with the weights and the tokenizer."""


@dataclass(frozen=True)
class DenseShape:
    """A config.json of one of the `DENSE` classes, complete."""

    values: Mapping[str, Any]

    @classmethod
    def of(cls, values: Mapping[str, Any], *, where: str) -> DenseShape:
        """The shape that `values` mean; `where` they stand is said in the error. Raises CheckpointError."""
        kind = values.get("model_type")
        if kind not in DENSE:
            raise CheckpointError(f"{where} is a {kind!r} model; a student is one of {', '.join(DENSE)}.")
        if "auto_map" in values or "quantization_config" in values:
            raise CheckpointError(f"{where} has auto_map or quantization_config: a student runs no code of its directory, and "
                                  "its weights are not quantized. Remove it, or choose another student.")
        try:
            config = AutoConfig.for_model(**values)
        except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{where} cannot be read by transformers: {str(error)[:200]}.") from error
        return cls({name: value for name, value in config.to_dict().items() if name not in _OF_A_FILE})

    def config(self) -> PreTrainedConfig:
        """As transformers takes it."""
        made: PreTrainedConfig = AutoConfig.for_model(**self.values)
        return made

    def resolved(self) -> dict[str, Any]:
        """Complete JSON."""
        return dict(self.values)

    @property
    def model_type(self) -> str:
        """One of `DENSE`."""
        return str(self.values["model_type"])

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, which may be more than the tokenizer has tokens."""
        return int(self.values["vocab_size"])

    @property
    def num_hidden_layers(self) -> int:
        """Blocks."""
        return int(self.values["num_hidden_layers"])

    @property
    def max_position_embeddings(self) -> int:
        """Longest sequence, in tokens."""
        return int(self.values["max_position_embeddings"])

    @property
    def tie_word_embeddings(self) -> bool:
        """Whether the head is the embedding."""
        return bool(self.values["tie_word_embeddings"])

    @property
    def num_nextn_predict_layers(self) -> int:
        """Blocks of multi-token prediction: a student has none."""
        return 0
