"""Sampling by `Sampler` against `generate()` of transformers' `DeepseekV3ForCausalLM`, float32, one thread.

Equal weights. The peer runs with its latent keys and values expanded and cached, SDPA and grouped experts, the fastest of
its settings here; ours also returns log-probabilities, the peer need not. *Sampled*: groups of 16 completions a prompt at
temperature 1, all of NEW_TOKENS. *Greedy*: as many prompts as rows. *Mixed*: sampled, four times as many completions as
rows, each ending when it draws the end token, which an untrained model does with probability 1/60; the peer takes them
batch by batch. The two take turns; the measure is the CPU time of the thread, the best of the repetitions.
Goals: 3 times the peer's tokens a second, 4 times when mixed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks._report import write
from model_core.config import preset
from model_core.model import Transformer, save_pretrained
from model_core.rollout import Sampler

VOCABULARY, PROMPT_TOKENS, NEW_TOKENS, GROUP = 60, 16, 48, 16
MIXED_TOKENS, MIXED_BATCHES, EOS, PAD, NEVER = 64, 4, 1, 0, -1
SIZES = {"tiny": {64: 7, 256: 4, 512: 3}, "small": {64: 2}}
"""Preset → batch → repetitions."""


def main() -> None:
    """Measures each preset and writes the result; the ratio is that of the worst batch of the tiny preset."""
    torch.set_num_threads(1)
    detail = {name: {f"batch {num}": measure(name, num, times) for num, times in nums.items()} for name, nums in SIZES.items()}
    worst = min((one["sampled"] for one in detail["tiny"].values()), key=lambda one: float(one["ratio"]))
    write(
        "rollout", packages=("torch", "transformers"), ours=worst["ours"], peer=worst["peer"], ratio=worst["ratio"],
        unit="tokens per second of one thread; ratio is the worst batch's of the tiny preset, sampled; goal 3, mixed 4",
        detail=detail,
    )  # fmt: skip


def measure(name: str, num_rows: int, num_repeats: int) -> dict[str, Any]:
    """Tokens a second of both in each of the three ways."""
    torch.manual_seed(0)
    ours = Transformer(preset(name).model_copy(update={"vocab_size": VOCABULARY})).eval()
    peer = _peer(ours)
    prompts = torch.randint(2, VOCABULARY, (num_rows, PROMPT_TOKENS))
    few = prompts[: num_rows // GROUP]
    more = torch.randint(2, VOCABULARY, (MIXED_BATCHES * num_rows // GROUP, PROMPT_TOKENS))
    ways = {
        "sampled": (_ours(ours, few, num_rows), _theirs(peer, few, num_rows)),
        "greedy": (_ours(ours, prompts, num_rows, temperature=0.0), _theirs(peer, prompts, num_rows, do_sample=False)),
        "mixed": (_ours(ours, more, num_rows, eos=EOS), _theirs(peer, more, num_rows, eos=EOS)),
    }
    return {way: _compared(*runs, num_repeats) for way, runs in ways.items()}


def _compared(ours: Callable[[], int], peer: Callable[[], int], num_repeats: int) -> dict[str, Any]:
    best: dict[str, float] = {"ours": 0.0, "peer": 0.0}
    wall: dict[str, float] = {"ours": 0.0, "peer": 0.0}
    for _ in range(num_repeats):
        for who, run in (("ours", ours), ("peer", peer)):
            began, began_wall = time.thread_time(), time.perf_counter()
            num_tokens = run()
            best[who] = max(best[who], num_tokens / (time.thread_time() - began))
            wall[who] = max(wall[who], num_tokens / (time.perf_counter() - began_wall))
    return {
        "ours": round(best["ours"]), "peer": round(best["peer"]), "ratio": round(best["ours"] / best["peer"], 2),
        "wall": {who: round(rate) for who, rate in wall.items()},
    }  # fmt: skip


def _ours(
    model: Transformer, prompts: torch.Tensor, num_rows: int, *, temperature: float = 1.0, eos: int = NEVER
) -> Callable[[], int]:
    sampler = Sampler(model, eos_token_id=eos, pad_token_id=PAD, max_rows=num_rows)
    group = 1 if temperature == 0 else GROUP
    limit = NEW_TOKENS if eos == NEVER else MIXED_TOKENS

    def run() -> int:
        drawn = sampler.generate(prompts.tolist(), num_samples=group, max_new_tokens=limit, temperature=temperature)
        return sum(len(completion.tokens) for group in drawn for completion in group)

    return run


def _theirs(
    model: Any, prompts: torch.Tensor, num_rows: int, *, do_sample: bool = True, eos: int = NEVER
) -> Callable[[], int]:
    options: dict[str, Any] = {"top_k": 0, "num_return_sequences": GROUP} if do_sample else {}
    options |= {"max_new_tokens": NEW_TOKENS} if eos == NEVER else {"max_new_tokens": MIXED_TOKENS, "eos_token_id": eos}

    def run() -> int:
        num_tokens = 0
        for few in prompts.split(num_rows // GROUP if do_sample else num_rows):
            drawn = model.generate(
                few, attention_mask=torch.ones_like(few), do_sample=do_sample, pad_token_id=PAD, **options
            )[:, PROMPT_TOKENS:]  # fmt: skip
            ended = (drawn == eos).cumsum(dim=1)
            num_tokens += int((ended - (drawn == eos).long() == 0).sum())
        return num_tokens

    return run


def _peer(model: Transformer) -> Any:
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as directory:
        save_pretrained(model, directory)
        peer = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="sdpa", experts_implementation="grouped_mm"
        )
    return peer.eval()


if __name__ == "__main__":
    main()
