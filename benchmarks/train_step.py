"""Training step of our model against transformers' `DeepseekV3ForCausalLM`: forward, cross-entropy, backward, AdamW.

Equal weights, batches and optimizer (torch's AdamW, fused for both), float32, one thread, one process; the peer runs its
grouped experts with SDPA. The two take turns, step by step, so that a busy minute falls on both; the measure is the CPU
time of the thread. Goal: at least 1.5 times the peer's tokens a second on each preset.

"equal" has rows of one length and every token as a target, so that only the speed of the operators counts. "mixed" is what
a cold start has: answers of mixed length after a prompt, loss on the answers; ours packs, the peer pads as its users do.
`bound` is the share of our step in matrix products and attention, which both need alike: what is left is all there is to win.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._report import write
from model_core.config import preset
from model_core.data.batches import pack_batch
from model_core.model import Transformer, save_pretrained
from tests.model_core.reference.padded import make_batch

GOAL = 1.5
SHAPES = {"tiny": (64, 32, 53), "small": (2048, 16, 128)}
"""Preset → (vocabulary, rows, tokens a row)."""
NUM_STEPS, NUM_WARMUP = 14, 3
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::_scaled_dot_product")
Loss = Callable[[], Tensor]


def main() -> None:
    """Measures each preset and kind of batch and writes the result; the ratio is that of the worst with equal lengths."""
    torch.set_num_threads(1)
    detail = {f"{name} {kind}": measure(name, kind) for name in SHAPES for kind in ("equal", "mixed")}
    worst = min((one for name, one in detail.items() if name.endswith("equal")), key=lambda one: float(one["ratio"]))
    write(
        "train_step", packages=("torch", "transformers"), ours=worst["ours"], peer=worst["peer"], ratio=worst["ratio"],
        unit="tokens per second of one thread; ratio is the worst preset's with equal lengths, goal 1.5", detail=detail,
    )


def measure(name: str, kind: str) -> dict[str, Any]:
    """Tokens a second of both on one preset and kind of batch, and the largest difference of their losses."""
    torch.manual_seed(0)
    vocab_size, num_rows, num_tokens = SHAPES[name]
    ours = Transformer(preset(name).model_copy(update={"vocab_size": vocab_size}))
    peer = _peer(ours)
    sequences = _sequences(kind, vocab_size, num_rows, num_tokens)
    losses: dict[str, Loss] = {"ours": _our_loss(ours, sequences, kind), "peer": _peer_loss(peer, sequences)}
    steps = {"ours": _step(ours, losses["ours"]), "peer": _step(peer, losses["peer"])}
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    values: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(NUM_WARMUP + NUM_STEPS):
        for who, step in steps.items():
            began = time.thread_time()
            values[who].append(step())
            if number >= NUM_WARMUP:
                seconds[who].append(time.thread_time() - began)
    num = sum(len(prompt) + len(completion) - 1 for prompt, completion in sequences)
    took = {who: statistics.median(taken) for who, taken in seconds.items()}
    return {
        "ours": round(num / took["ours"]), "peer": round(num / took["peer"]), "ratio": round(took["peer"] / took["ours"], 2),
        "num_tokens": num, "vocab_size": vocab_size, "ms_per_step": {who: round(1000 * one, 1) for who, one in took.items()},
        "max_loss_difference": max(abs(a - b) for a, b in zip(values["ours"], values["peer"], strict=True)),
        "bound": {who: _bound(step) for who, step in steps.items()},
    }


def _sequences(kind: str, vocab_size: int, num_rows: int, num_tokens: int) -> list[tuple[list[int], list[int]]]:
    draw = random.Random(0)
    lengths = [num_tokens + 1] * num_rows
    if kind == "mixed":
        lengths = [draw.randint(num_tokens // 3, num_tokens + 1) for _ in lengths]
    prompts = [0 if kind == "equal" else length // 3 for length in lengths]
    return [
        ([draw.randrange(vocab_size) for _ in range(prompt)], [draw.randrange(vocab_size) for _ in range(length - prompt)])
        for length, prompt in zip(lengths, prompts, strict=True)
    ]


def _our_loss(model: Transformer, sequences: list[tuple[list[int], list[int]]], kind: str) -> Loss:
    if kind == "equal":
        padded = make_batch(sequences, pad=0)
        return lambda: F.cross_entropy(model(padded.tokens_BT).flatten(0, 1), padded.targets_BT.flatten())
    batch = pack_batch(sequences)
    return lambda: F.cross_entropy(model(batch.tokens_1N, packing=batch.packing, at_M=batch.at_M), batch.targets_M)


def _peer_loss(model: Any, sequences: list[tuple[list[int], list[int]]]) -> Loss:
    batch = make_batch(sequences, pad=0)
    targets_BT = batch.targets_BT.masked_fill(batch.mask_BT == 0, -100)
    mask_BT = None if batch.real_BT.all() else batch.real_BT.long()
    return lambda: F.cross_entropy(
        model(batch.tokens_BT, attention_mask=mask_BT).logits.flatten(0, 1), targets_BT.flatten(), ignore_index=-100
    )


def _peer(model: Transformer) -> Any:
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as directory:
        save_pretrained(model, f"{directory}/model")
        return AutoModelForCausalLM.from_pretrained(
            f"{directory}/model", dtype=torch.float32, attn_implementation="sdpa", experts_implementation="grouped_mm"
        ).train()


def _step(model: Any, compute: Loss) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = compute()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def _bound(step: Callable[[], float]) -> float:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(3):
            step()
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    return round(sum(event.self_cpu_time_total for event in events if event.key.startswith(PRODUCTS)) / total, 2)


if __name__ == "__main__":
    main()
