"""Texts and their scores: documents in packed rows, each judged at its last token, which is the end of the answer.

An answer that was cut off is judged as if it had ended there. Letters: N tokens of a packed row, M documents of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from model_core.data.batches import PackedBatch, pack_batch, split_by_size
from model_core.data.dataset import Row
from model_core.data.tokenizer import encode_rows
from model_core.errors import CheckpointError
from model_core.reward_model.exchange import load_reward_model

MAX_TOKENS = 8192
"""Most padded tokens in one forward pass."""


def pack_documents(documents: Sequence[list[int]], *, device: torch.device) -> PackedBatch:
    """Packs whole documents; `at_M` is the place of the last token of each, in order."""
    return pack_batch([(document, [0]) for document in documents], device=device)  # what would come next is never read


@torch.no_grad()
def scores_of(
    model: nn.Module, documents: Sequence[list[int]], *, device: torch.device, max_tokens: int = MAX_TOKENS
) -> list[float]:
    """The score of each document, in order, whatever company it is packed with."""
    scores = [math.nan] * len(documents)
    for indices in split_by_size([len(document) for document in documents], max_tokens=max_tokens):
        batch = pack_documents([documents[i] for i in indices], device=device)
        found_M = model(batch.tokens_1N, packing=batch.packing, at_M=batch.at_M)
        for index, score in zip(indices, found_M.float().tolist(), strict=True):
            scores[index] = score
    return scores


def documents_of(tokenizer: PreTrainedTokenizerFast, texts: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Prompt and answer of each, in the form of a conversation, up to the mark that ends the answer."""
    return [[*prompt, *answer] for prompt, answer in encode_rows(tokenizer, [Row(prompt, answer) for prompt, answer in texts])]


class Scorer:
    """The reward model of a checkpoint, ready to judge. Raises CheckpointError when it is damaged, or of another phase."""

    def __init__(self, checkpoint: str | Path, device: torch.device) -> None:
        from model_core.training.checkpoints import verify  # which knows this package
        from model_core.training.start import REWARD_MODEL, load_tokenizer

        metadata = verify(checkpoint)
        if metadata.get("phase") != REWARD_MODEL:
            raise CheckpointError(f"{checkpoint} is of the phase {metadata.get('phase')}, which makes no reward model. Choose a "
                                  f"checkpoint of the phase {REWARD_MODEL}.")
        directory = Path(checkpoint) / "model"
        model, shape = load_reward_model(directory)
        self.centre, self.max_tokens = float(model.centre), shape.max_position_embeddings
        self._model, self._device = model.to(device).eval(), device
        self._tokenizer = load_tokenizer(directory)

    def scores(self, texts: Sequence[tuple[str, str]]) -> list[float | None]:
        """The score of each (prompt, answer); None where it has more than `max_tokens` tokens."""
        documents = documents_of(self._tokenizer, texts)
        short = [place for place, document in enumerate(documents) if len(document) <= self.max_tokens]
        found: list[float | None] = [None] * len(documents)
        for place, score in zip(short, scores_of(self._model, [documents[i] for i in short], device=self._device), strict=True):
            found[place] = score
        return found
