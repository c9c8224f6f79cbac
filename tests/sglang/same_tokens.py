"""Directories with all that one can say, as transformers makes them, and three readers that have to agree on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import torch

from model_core.model import Transformer, load_pretrained
from model_core.rollout import Sampler
from tests.model_core.model.random_models import CLASSES, GROUPS, V2, YARN, shape, theirs, tokens

KEY = "engine-key"
NUM_NEW = 24
STRENGTHS = YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}
EVERYTHING: dict[str, dict[str, Any]] = {
    "v3": {**GROUPS, "q_lora_rank": 10, "rope_scaling": YARN, "num_nextn_predict_layers": 1, "routed_scaling_factor": 2.5},
    "v2": {**V2, **GROUPS, "topk_method": "group_limited_greedy", "n_shared_experts": 2, "rope_scaling": STRENGTHS},
}
"""All that a directory can say beyond the plain shape, once for each architecture."""


def from_transformers(name: str, directory: Path, vocab_size: int) -> Transformer:
    """A random model of transformers'; in V3 with a block of multi-token prediction, which is no part of plain decoding."""
    config = shape(**EVERYTHING[name], vocab_size=vocab_size)
    theirs(config).save_pretrained(directory / "theirs")
    torch.manual_seed(2)
    model = Transformer(config)
    model.load_state_dict(load_pretrained(directory / "theirs").state_dict(), strict=False)
    return model


def say_the_same(url: str, model: Transformer, directory: Path) -> None:
    """Greedy tokens of the engine at `url`, of transformers' class for `directory` and of our sampler."""
    prompts = tokens(model.config, rows=8, length=17)
    found = Sampler(model, eos_token_id=-1, pad_token_id=0).generate(prompts.tolist(), max_new_tokens=NUM_NEW, temperature=0.0)
    ours = [completions[0].tokens for completions in found]
    reference = CLASSES[model.config.model_type][1].from_pretrained(directory).eval()
    generated = reference.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=NUM_NEW, do_sample=False, eos_token_id=None
    )
    assert generated[:, prompts.shape[1] :].tolist() == ours
    body = {"input_ids": prompts.tolist(), "sampling_params": {"temperature": 0, "max_new_tokens": NUM_NEW, "ignore_eos": True}}
    answer = httpx.post(f"{url}/generate", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False)
    assert answer.is_success, answer.text
    assert [one["output_ids"] for one in answer.json()] == ours
