"""One directory, three readers: the real SGLang, transformers and our sampler give the same greedy tokens from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from model_core.model import Transformer, load_pretrained, save_pretrained
from model_core.rollout import Sampler
from tests.model_core.model.random_models import CLASSES, GROUPS, V2, YARN, shape, theirs, tokenizer, tokens
from tests.sglang.test_real_sglang import KEY, MISSING, serve

pytestmark = [
    pytest.mark.sglang, pytest.mark.timeout(240), pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]  # fmt: skip
NUM_NEW = 24
STRENGTHS = YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}
EVERYTHING: dict[str, dict[str, Any]] = {
    "v3": {**GROUPS, "q_lora_rank": 10, "rope_scaling": YARN, "num_nextn_predict_layers": 1, "routed_scaling_factor": 2.5},
    "v2": {**V2, **GROUPS, "topk_method": "group_limited_greedy", "n_shared_experts": 2, "rope_scaling": STRENGTHS},
}
"""All that a directory can say beyond the plain shape, once for each architecture."""


def written(name: str, directory: Path) -> Transformer:
    """A random model of transformers', as we write it: with a tokenizer and, in V3, a block of multi-token prediction,
    which is no part of plain decoding."""
    words = tokenizer()
    config = shape(**EVERYTHING[name], vocab_size=len(words))
    theirs(config).save_pretrained(directory / "theirs")
    torch.manual_seed(2)
    model = Transformer(config)
    model.load_state_dict(load_pretrained(directory / "theirs").state_dict(), strict=False)
    save_pretrained(model, directory / "ours", words)
    return load_pretrained(directory / "ours")


@pytest.fixture(scope="module", params=["v3", pytest.param("v2", marks=pytest.mark.slow)])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Transformer, Path, str]]:
    directory = tmp_path_factory.mktemp(request.param)
    model = written(request.param, directory)
    for url in serve("sglang", directory / "ours", directory, 150):
        yield model, directory / "ours", url


def test_all_three_say_the_same_tokens(served: tuple[Transformer, Path, str]) -> None:
    model, directory, url = served
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
