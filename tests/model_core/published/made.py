"""A whole tiny V3 directory as it would be published: weights, configuration, tokenizer with its chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from model_core.config import ModelConfig, TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import train_tokenizer
from model_core.model import Transformer, save_pretrained

TEXT = "What is 17 + 25? <think>7+5=12 carry 1; 1+2+1=4</think>42"


def make_directory(directory: Path, *, seed: int = 0, **options: Any) -> Path:
    """The directory; `options` go to `save_pretrained`."""
    torch.manual_seed(seed)
    rows = [Row(prompt=TEXT, completion=TEXT, answer="42", task="", meta={})]
    tokenizer = train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=300), rows)
    config = {"vocab_size": len(tokenizer), "hidden_size": 32, "max_position_embeddings": 128}
    model = Transformer(ModelConfig.parse(config))
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.5)
    save_pretrained(model, directory, tokenizer, **options)
    return directory


def say(file: Path, **changes: Any) -> None:
    """Changes what a JSON file says; None takes a name out."""
    told = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in told.items() if value is not None}))
