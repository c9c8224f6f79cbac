"""The tokenizer of a dense student reads as the one that it learnt with, although its model's type has another one of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from model_core.config import TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import prompt_ids, train_tokenizer
from model_core.training.start import load_tokenizer

TEXT = "Mia has 725 apples. Ben gives Mia 755 more. How many apples does Mia have now?"


@pytest.mark.parametrize("kind", ["words", "byte_bpe"])
@pytest.mark.parametrize("model_type", ["qwen2", "qwen3", "llama"])
def test_what_was_saved_is_read_again(kind: Literal["words", "byte_bpe"], model_type: str, tmp_path: Path) -> None:
    rows = [Row(prompt=TEXT, completion="<think>725 + 755 = 1480</think>1480", answer="1480")] * 20
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=300), rows)
    tokenizer.save_pretrained(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = load_tokenizer(tmp_path)
    assert prompt_ids(loaded, TEXT) == prompt_ids(tokenizer, TEXT)
    assert len(loaded) == len(tokenizer) and loaded.eos_token_id == tokenizer.eos_token_id
