"""An untrained model with a tokenizer, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_core.config import ModelConfig, TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import train_tokenizer
from model_core.model import Transformer, save_pretrained

TEXT = "What is 17 + 25? <think>7+5=12 carry 1; 1+2+1=4</think>42"


@pytest.fixture(scope="package")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with a tokenizer."""
    torch.manual_seed(0)
    rows = [Row(prompt=TEXT, completion=TEXT, answer="42", task="", meta={})]
    tokenizer = train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=300), rows)
    config = {"vocab_size": len(tokenizer), "hidden_size": 32, "max_position_embeddings": 128}
    model = Transformer(ModelConfig.parse(config))
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.5)
    directory = tmp_path_factory.mktemp("model")
    save_pretrained(model, directory, tokenizer)
    return directory
