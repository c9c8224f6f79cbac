"""A checkpoint of a few thousand weights that sometimes thinks, a dataset of sums, and the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from model_core.__main__ import main
from model_core.config import ModelConfig, TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import END_THINK, THINK, train_tokenizer
from model_core.model import Transformer, save_pretrained
from model_core.training.checkpoints import seal

TEXT = "What is 17 + 25? <think>7+5=12 carry 1; 1+2+1=4</think>42"
SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "moe_intermediate_size": 16, "num_attention_heads": 2,
    "n_routed_experts": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "max_position_embeddings": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What a word of the command line left: its exit status and its two outputs."""

    status: int
    out: str
    err: str


Say = Callable[..., Said]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs one word. A usage error of argparse is a status like any other."""

    def run(*argv: object) -> Said:
        capsys.readouterr()
        try:
            status = main([str(word) for word in argv])
        except SystemExit as ended:
            assert isinstance(ended.code, int)
            status = ended.code
        out, err = capsys.readouterr()
        return Said(status, out, err)

    return run


@pytest.fixture(autouse=True)
def threads_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word sets the threads of its process; this one has other tests too, and cores that others work on."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _number: None)


@pytest.fixture(scope="package")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed checkpoint as a trainer writes it."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=300), [Row(prompt=TEXT, completion=TEXT)])
    config = ModelConfig.parse({**SHAPE, "vocab_size": len(tokenizer)})
    model = Transformer(config)
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.5)
        model.lm_head.weight[tokenizer.convert_tokens_to_ids(THINK)] *= -4  # so some answers begin with thinking and end it
        model.lm_head.weight[tokenizer.convert_tokens_to_ids(END_THINK)] *= 3
    directory = tmp_path_factory.mktemp("checkpoints") / "step_00000004"
    save_pretrained(model, directory / "model", tokenizer)
    seal(directory, {"step": 4, "phase": "cold_start", "model_config": config.resolved()})
    return directory


@pytest.fixture(scope="package")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten sums in each split."""
    directory = tmp_path_factory.mktemp("sums")
    rows = [{"prompt": f"{n}+{n}=", "completion": f"<think></think>{2 * n}", "answer": str(2 * n)} for n in range(10, 20)]
    for split in ("train", "held_out"):
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory
